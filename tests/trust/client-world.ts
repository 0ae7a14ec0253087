import type { Clock } from "@lockstep/platform";
import { SimDisk } from "@lockstep/testing";
import { MetadataStore, type Mirror, MirrorSource, TrustClient } from "@lockstep/trust";
import { NOW, type SmallRepository } from "./small-repository.ts";

/** Time that stands still unless told to move; sleeping never ends by itself. */
export class StillClock implements Clock {
  nowMs: number;
  constructor(nowMs = NOW) {
    this.nowMs = nowMs;
  }
  now(): number {
    return this.nowMs;
  }
  monotonic(): number {
    return this.nowMs;
  }
  sleep(_ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => signal?.addEventListener("abort", () => resolve(), { once: true }));
  }
}

export const TRUST = "/app/trust";

/** A place where metadata is kept, with a pinned root. */
export async function pinned(repository: SmallRepository): Promise<{ disk: SimDisk; clock: StillClock }> {
  const disk = new SimDisk();
  disk.makeDirectory("/app", 0o755);
  await disk.syncDirectories(["/"]);
  await TrustClient.pin(new MetadataStore(disk, TRUST), repository.root);
  return { disk, clock: new StillClock(repository.now) };
}

/** One refresh of a new process. */
export async function refresh(
  { disk, clock }: { readonly disk: SimDisk; readonly clock: StillClock },
  ...mirrors: readonly Mirror[]
): Promise<TrustClient> {
  const trust = await TrustClient.open(new MetadataStore(disk, TRUST), clock);
  await trust.refresh(new MirrorSource(mirrors, clock));
  return trust;
}

/** The code that an act ends with; "accepted" when it does not. */
export async function outcome(act: () => Promise<unknown>): Promise<string> {
  try {
    await act();
    return "accepted";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : `FAULT ${String(error)}`;
  }
}
