import { DEFAULT_RESOURCE_POLICY, type ResourceDefinition } from "@lockstep/core";
import { isLockstepError } from "@lockstep/protocol";
import { openIpAddress } from "../../packages/cluster/src/resources/ip-address.ts";
import { labNow } from "../support/lab.ts";

// One `ip-address` on one host of the lab, without a daemon and a lease: does what its input says, one word a line, and
// answers each with one line of JSON. Ends with its input, and takes nothing away then.
const [settings, directory] = JSON.parse(process.argv[2] ?? "[]") as [ResourceDefinition["settings"], string];
let token: number | null = 1;
const tell = (line: object) => process.stdout.write(`${JSON.stringify({ at: labNow(), ...line })}\n`);
const resource = openIpAddress({
  virtualServer: "VS",
  node: "n",
  definition: { name: "address", type: "ip-address", settings, policy: DEFAULT_RESOURCE_POLICY },
  token: () => token,
  note: (what, detail) => tell({ event: "note", text: `${what}: ${detail}` }),
  failed: (problem) => tell({ event: "failed", text: problem }),
  directory,
});

async function obey(word: string): Promise<void> {
  try {
    if (word === "online") await resource.online(() => {}, new AbortController().signal);
    else if (word === "offline") await resource.offline(() => {});
    else if (word === "terminate") await resource.terminate();
    else if (word === "check" || word === "thorough")
      return void tell({ event: "done", text: await resource.check(word === "thorough") });
    else if (word === "undo") return void tell({ event: "done", text: JSON.stringify(resource.undo) });
    else if (word === "fence") token = null;
    tell({ event: "done", text: null });
  } catch (error) {
    tell({ event: "done", text: isLockstepError(error) ? `${error.code} ${error.message}` : String(error) });
  }
}

let rest = "";
process.stdin.setEncoding("utf8").on("data", (text: string) => {
  const lines = (rest + text).split("\n");
  rest = lines.pop() ?? "";
  for (const line of lines) void obey(line);
});
process.stdin.on("end", () => process.exit(0));
