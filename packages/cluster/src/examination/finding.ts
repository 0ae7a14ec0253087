import type { NodeFinding } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol/wire";

/** `mark`: digest of what must be equal on all nodes. */
export const ok = (id: string, detail: string, mark: string | null = null): NodeFinding => ({
  ...{ id, state: "ok", detail, hint: null, mark },
});

export const warning = (id: string, detail: string, hint: string): NodeFinding => ({
  ...{ id, state: "warning", detail, hint, mark: null },
});

export const failed = (id: string, detail: string, hint: string): NodeFinding => ({
  ...{ id, state: "failed", detail, hint, mark: null },
});

/** A look that throws is a finding too: one that cannot be taken must not hide the others. */
export async function looking(
  id: string,
  look: () => Promise<NodeFinding[]> | NodeFinding[],
): Promise<NodeFinding[]> {
  try {
    return await look();
  } catch (error) {
    const code = isLockstepError(error) ? `${error.code}: ` : "";
    const message = error instanceof Error ? error.message : String(error);
    return [
      failed(
        id,
        `${code}${message}`,
        (isLockstepError(error) ? error.hint : undefined) ?? "Look at what is named, then check again.",
      ),
    ];
  }
}
