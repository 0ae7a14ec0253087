/**
 * What becomes of a file that somebody changed in the installation.
 *
 * `replace`: the repository wins; a copy of the changed file is kept under .lockstep/backup. `keep`: the changed file
 * stays until it is given up by hand. `keep-and-report`: it stays, and each run says so to the hub. The same holds for
 * a file that was there before the product wanted its place (foreign). A deleted file is not an edit: it comes back.
 */
export type EditsPolicy = "replace" | "keep" | "keep-and-report";

export const EDITS_POLICIES: readonly EditsPolicy[] = ["replace", "keep", "keep-and-report"];

/** Reads the name of a policy. Returns null when it is none. */
export function parseEditsPolicy(text: unknown): EditsPolicy | null {
  return EDITS_POLICIES.find((policy) => policy === text) ?? null;
}

/** Whether a file that is not as we left it stays. */
export function keepsEdits(policy: EditsPolicy): boolean {
  return policy !== "replace";
}
