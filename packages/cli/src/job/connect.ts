import { hostname, userInfo } from "node:os";
import { JobClient } from "@lockstep/client";
import { withHub } from "../connect.ts";
import type { HubArguments } from "../hub-address.ts";

/** The options that every `lockstep job` command has. */
export interface JobArguments extends HubArguments {
  readonly json?: boolean;
}

/** Runs something with the calls of the job service, in the name of whoever started the command. */
export async function withJobs<T>(given: JobArguments, use: (jobs: JobClient) => Promise<T>): Promise<T> {
  return await withHub(given, async (hub) => await use(new JobClient(hub, currentActor())));
}

function currentActor(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    // A user id without a name, as in some containers.
    return `uid ${process.getuid?.() ?? "unknown"}@${hostname()}`;
  }
}
