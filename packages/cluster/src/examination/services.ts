import { createHash } from "node:crypto";
import { accessSync, constants, createReadStream, existsSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import type {
  NodeFinding,
  ResourceDefinition,
  ResourceSetting,
  VirtualServerDefinition,
} from "@lockstep/core";
import { askOcf } from "../resources/ocf.ts";
import { failed, ok, warning } from "./finding.ts";
import { examineRemoteFiles } from "./remote-files.ts";
import { findUnit } from "./systemd-unit.ts";
import { examineMount, examineShare } from "./volumes.ts";

/**
 * Whether this machine has what a virtual server's resources stand on: the service is installed (S8), what is mounted and
 * shared is there or can be reached, OCF agents take their parameters. Nothing is started, mounted or changed.
 */
export async function examineServer(definition: VirtualServerDefinition): Promise<NodeFinding[]> {
  const { name, resources } = definition;
  const findings = examineRemoteFiles(definition);
  for (const resource of resources) findings.push(...(await examineResource(name, resource, resources)));
  // So that whoever waits for this node's look at a virtual server sees that it was taken.
  return findings.length > 0 ? findings : [ok(name, "nothing of it is looked at before it comes online")];
}

async function examineResource(
  server: string,
  resource: ResourceDefinition,
  resources: VirtualServerDefinition["resources"],
): Promise<NodeFinding[]> {
  const id = `${server} [${resource.name}]`;
  switch (resource.type) {
    case "generic-service":
      return examineService(id, resource.settings);
    case "mount":
      return examineMount(id, resource, resources);
    case "file-share":
      return examineShare(id, resource, resources);
    case "ocf":
      return examineAgent(id, resource);
    default:
      return [];
  }
}

type Settings = Readonly<Record<string, ResourceSetting>>;

async function examineService(id: string, { program, unit, jobService }: Settings): Promise<NodeFinding[]> {
  if (typeof unit === "string") {
    const found = await findUnit(unit);
    if (found === null)
      return [failed(id, `there is no systemd unit ${unit}`, "Install the service on this node too (S8).")];
    return [ok(id, `${unit} is installed, ${found.state}, ${found.startMode}`, found.mark)];
  }
  if (typeof jobService === "string")
    return existsSync(jobService)
      ? [ok(id, `${jobService} is there`)]
      : [failed(id, `${jobService} is not there`, "Install the job service on this node too (S8, S10).")];
  if (typeof program !== "string") return [];
  try {
    accessSync(program, constants.X_OK);
  } catch {
    return [
      failed(id, `${program} is not there or cannot be run`, "Install the service on this node too (S8)."),
    ];
  }
  return [ok(id, `${program} is installed`, await digestOf(program))];
}

/** SHA-256 of a file, read piece by piece. */
async function digestOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex");
}

/** What the agent itself says, without starting anything. */
async function examineAgent(id: string, { settings, policy }: ResourceDefinition): Promise<NodeFinding[]> {
  const { faults, refusal } = await askOcf(settings);
  if (faults.length > 0)
    return faults.map((fault) =>
      failed(id, fault, "Correct the settings, or install the agent on this node."),
    );
  if (refusal === null) return [ok(id, `${String(settings.agent)} takes its parameters`)];
  // What it stands on is on one node alone: on the others it may miss that and nothing else.
  return policy.dependency.length > 0
    ? [warning(id, refusal, "No fault if what it needs comes from the resources that it depends on.")]
    : [failed(id, refusal, "Correct the parameters, or install on this node what the agent needs.")];
}
