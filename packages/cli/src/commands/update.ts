import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "@lockstep/platform";
import type { SessionOptions } from "@lockstep/updater";
import type { Command } from "commander";
import { addChangeArguments, addEditsOption, type ChangeArguments } from "../installation.ts";
import { usage } from "../options.ts";
import { tellRun } from "../screen/run-text.ts";
import { RunView } from "../screen/run-view.ts";

interface UpdateArguments extends ChangeArguments {
  readonly from?: string;
  readonly now?: boolean;
}

/** `lockstep update`: brings an installation to the current software revision. */
export function define(command: Command): void {
  addEditsOption(addChangeArguments(command))
    .option("--from <bundle>", "take it from a file of `lockstep bundle export`, without a hub")
    .option("--now", "whatever time of the day large updates are for")
    .action(async (directory: string, options: UpdateArguments) => {
      using view = new RunView(options);
      const { from, now, edits } = options;
      const run = async (session: SessionOptions) => {
        const { update } = await import("@lockstep/updater");
        const result = await update(directory, { ...session, edits, now, trigger: "manual" });
        tellRun(view.output, directory, result);
      };
      if (from === undefined) return await run(view.session(options));
      if (options.hub !== undefined || options.relay !== undefined)
        throw usage("--from takes the place of a hub", "--from alone", "--hub or --relay beside it");
      await fromBundle(directory, from, view.session(options), run);
    });
}

/** The bundle is verified from the root that the installation pinned, and served to it by this process alone. */
async function fromBundle(
  directory: string,
  file: string,
  session: SessionOptions,
  run: (session: SessionOptions) => Promise<void>,
): Promise<void> {
  const { importBundle, startCarriedRelay } = await import("@lockstep/relay");
  const { readTrusted } = await import("@lockstep/updater");
  const place = await mkdtemp(join(tmpdir(), "lockstep-bundle-"));
  try {
    await importBundle({ file, directory: place, root: null, trusted: await readTrusted(directory) });
    const options = { dataDirectory: place, listen: "127.0.0.1:0", tls: null, log: silentLogger };
    const relay = await startCarriedRelay(options);
    try {
      await run({ ...session, access: { ...session.access, url: relay.url, relay: "none" } });
    } finally {
      await relay.stop();
    }
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}
