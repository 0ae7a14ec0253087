import { accessSync, constants, statfsSync } from "node:fs";
import type { HubClient } from "@lockstep/client";
import { printable } from "@lockstep/platform";
import { isLockstepError } from "@lockstep/protocol/wire";
import type { Command } from "commander";
import { withHub } from "../connect.ts";
import { adviseOnDamage } from "../damage-advice.ts";
import { Finished } from "../failure.ts";
import { givenHubUrl, type HubArguments } from "../hub-address.ts";
import { accessOf } from "../installation.ts";
import { remarkOnCertificate, remarksOn } from "../keys/remarks.ts";
import { addHubOptions, addJsonOption } from "../options.ts";
import { counted, formatBytes, formatDuration, formatUtc } from "../screen/format.ts";
import { Output } from "../screen/output.ts";
import { PRODUCT_VERSION } from "../version.ts";

/** One thing that was looked at. A warning does not keep anything from working. */
interface Finding {
  readonly id: string;
  readonly state: "ok" | "warning" | "failed";
  readonly detail: string;
  /** What to do about it. */
  readonly hint: string | null;
}

/** A task of the DBQueue that waits longer than this has a reason that somebody should know. */
const WAITING_LONG_MS = 5 * 60_000;
/** Less space than this will not hold many updates. */
const SPACE_LOW_BYTES = 1_000_000_000;

/** `lockstep doctor [DIR...]`: looks at everything that usually is the reason, changes nothing. */
export function define(command: Command): void {
  addJsonOption(addHubOptions(command.argument("[directory...]", "installations to look at as well"))).action(
    async (directories: readonly string[], options: HubArguments & { readonly json?: boolean }) => {
      const findings = [
        ...(givenHubUrl(options) === null ? [] : await examineHub(options)),
        ...(await examineInstallations(directories, options)),
      ];
      const output = new Output(options);
      const healthy = findings.every((finding) => finding.state !== "failed");
      output.document({ healthy, checks: findings });
      for (const finding of findings) tell(output, finding);
      if (findings.length === 0)
        output.note("Nothing to look at: name a hub (--hub), or the directory of an installation.");
      throw new Finished(findings.length === 0 ? 2 : healthy ? 0 : 1);
    },
  );
}

function tell(output: Output, { id, state, detail, hint }: Finding): void {
  const words = {
    ok: output.paintData("green", "ok     "),
    warning: output.paintData("yellow", "warning"),
    failed: output.paintData("red", "failed "),
  };
  output.line(`${words[state]}  ${printable(id)}: ${printable(detail)}`);
  if (hint !== null) output.line(`         ${printable(hint)}`);
}

function ok(id: string, detail: string): Finding {
  return { id, state: "ok", detail, hint: null };
}

/** A look that throws is a finding as well. */
async function looking(id: string, look: () => Promise<Finding[]> | Finding[]): Promise<Finding[]> {
  try {
    return await look();
  } catch (error) {
    const hint = isLockstepError(error) ? (error.hint ?? null) : null;
    const code = isLockstepError(error) ? `${error.code}: ` : "";
    return [
      {
        id,
        state: "failed",
        detail: `${code}${error instanceof Error ? error.message : String(error)}`,
        hint,
      },
    ];
  }
}

function examineHub(options: HubArguments): Promise<Finding[]> {
  return looking("hub", () =>
    withHub(options, async (hub) => [
      ...(await looking("hub", () => examineStatus(hub))),
      ...(await looking("signatures", () => examineSigning(hub))),
      ...(await looking("DBQueue", () => examineQueue(hub))),
      ...(await looking("installations", () => examineFleet(hub))),
    ]),
  );
}

async function examineStatus(hub: HubClient): Promise<Finding[]> {
  const status = await hub.status();
  const findings = [
    ok("hub", `${hub.url} answers, ${status.database}, software revision ${status.revision}`),
  ];
  findings.push(
    status.version === PRODUCT_VERSION
      ? ok("versions", `command and hub are both ${PRODUCT_VERSION}`)
      : {
          id: "versions",
          state: "warning",
          detail: `this command is ${PRODUCT_VERSION}, the hub ${status.version}`,
          hint: "Bring both to the same version.",
        },
  );
  const certificate = remarkOnCertificate(status);
  if (certificate !== null)
    findings.push({
      id: "certificate",
      state: "warning",
      detail: certificate,
      hint: "Its files are those of --tls-cert and --tls-key.",
    });
  else if (status.certificate)
    findings.push(ok("certificate", `good until ${formatUtc(status.certificate.expiresAt)}`));
  for (const step of status.setup)
    findings.push({ id: "set-up", state: "warning", detail: step, hint: "lockstep setup does it." });
  return findings;
}

async function examineSigning(hub: HubClient): Promise<Finding[]> {
  const hint = "docs/operating/trust.md says what to do.";
  const remarks = remarksOn(await hub.signingStatus());
  return remarks.length === 0
    ? [ok("signatures", "root and release keys are off the hub, and nothing is due")]
    : remarks.map((detail) => ({ id: "signatures", state: "warning", detail, hint }));
}

async function examineQueue(hub: HubClient): Promise<Finding[]> {
  const queue = await hub.dbQueue();
  if (queue.stopped)
    return [
      {
        id: "DBQueue",
        state: "failed",
        detail: `stopped${queue.stoppedReason === null ? "" : `: ${queue.stoppedReason}`}`,
        hint: "Loads are kept, but no software revision comes of them. lockstep dbqueue start ends it.",
      },
    ];
  const now = Date.now();
  const findings: Finding[] = [];
  for (const task of queue.tasks) {
    const age = task.oldestAt === null ? 0 : now - task.oldestAt;
    if (task.lastError !== null && task.waiting > 0)
      findings.push({
        id: "DBQueue",
        state: "failed",
        detail: `${task.task} fails: ${task.lastError}`,
        hint: "The hub's log says more.",
      });
    else if (age > WAITING_LONG_MS)
      findings.push({
        id: "DBQueue",
        state: "warning",
        detail: `${task.task} has waited for ${formatDuration(age)}${task.blockedBy === null ? "" : ` (${task.blockedBy})`}`,
        hint: "lockstep dbqueue shows what it waits for.",
      });
  }
  return findings.length > 0 ? findings : [ok("DBQueue", "nothing is stuck")];
}

async function examineFleet(hub: HubClient): Promise<Finding[]> {
  const [{ installations }, { revision, autoUpdate }] = await Promise.all([
    hub.installations(),
    hub.currentSemaphore(),
  ]);
  const findings: Finding[] = [];
  if (!autoUpdate)
    findings.push({
      id: "automatic update",
      state: "warning",
      detail: "it is switched off for all installations",
      hint: "lockstep settings set Common/AutoUpdate=true switches it on.",
    });
  const failed = installations.filter((each) => each.outcome === "failed");
  for (const each of failed.slice(0, 10))
    findings.push({
      id: "installations",
      state: "warning",
      detail: `${each.host} ${each.directory}: ${each.problem ?? "failed"}`,
      hint: null,
    });
  const behind = installations.filter((each) => each.revision !== revision).length;
  findings.push(
    ok("installations", `${installations.length} known, ${behind} behind, ${failed.length} failed`),
  );
  return findings;
}

async function examineInstallations(
  directories: readonly string[],
  options: HubArguments,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const directory of directories)
    findings.push(
      ...(await looking(directory, () => examinePlace(directory))),
      ...(await looking(directory, () => examineInstallation(directory, options))),
    );
  return findings;
}

function examinePlace(directory: string): Finding[] {
  const space = statfsSync(directory);
  const free = space.bavail * space.bsize;
  const findings: Finding[] = [
    free >= SPACE_LOW_BYTES
      ? ok(directory, `${formatBytes(free)} free`)
      : {
          id: directory,
          state: "warning",
          detail: `only ${formatBytes(free)} free`,
          hint: "An update needs room for every changed file twice.",
        },
  ];
  try {
    accessSync(directory, constants.W_OK);
  } catch {
    findings.push({
      id: directory,
      state: "warning",
      detail: "this user cannot write it",
      hint: "Updates need somebody who can.",
    });
  }
  return findings;
}

function describeDamage(damages: readonly { readonly path: string }[]): string {
  const [first] = damages;
  return damages.length === 1
    ? `1 file is not as installed: ${first?.path}`
    : `${counted(damages.length, "file")} are not as installed, ${first?.path} for one`;
}

async function examineInstallation(directory: string, options: HubArguments): Promise<Finding[]> {
  const { check, logAltered, notReadable, verify } = await import("@lockstep/updater");
  const access = accessOf(options);
  const { damages, edits, logBreak, unreadable } = await verify(directory, { access, quick: true });
  const refused = await notReadable(directory, unreadable);
  const findings: Finding[] =
    damages.length === 0
      ? refused === null
        ? [ok(directory, "no file looks touched")]
        : []
      : [
          {
            id: directory,
            state: edits === "replace" ? "failed" : "warning",
            detail: describeDamage(damages),
            hint: `lockstep verify ${directory} shows all. ${adviseOnDamage(directory, damages, edits)}`,
          },
        ];
  if (refused !== null)
    findings.push({ id: directory, state: "failed", detail: refused.message, hint: refused.hint ?? null });
  if (logBreak !== null) {
    const { code, message, expected, found: link, hint } = await logAltered(directory, logBreak);
    const detail = `${code}: ${message}, expected ${expected}, found ${link}`;
    findings.push({ id: directory, state: "failed", detail, hint: hint ?? null });
  }
  const found = await check(directory, { access });
  findings.push(
    found.kind === "in-step"
      ? ok(directory, `in step: software revision ${found.revision}`)
      : {
          id: directory,
          state: "warning",
          detail: `behind: software revision ${found.installed ?? "unknown"}, the hub has ${found.semaphore.revision}`,
          hint: `lockstep update ${directory} brings it in step.`,
        },
  );
  if (!found.head.settings.autoUpdate)
    findings.push({
      id: directory,
      state: "warning",
      detail: "automatic updates are switched off here",
      hint: `lockstep configure ${directory} --auto-update on switches them on.`,
    });
  return findings;
}
