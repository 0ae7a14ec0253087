import * as protocol from "@lockstep/protocol";
import { parseBoundedJson } from "@lockstep/protocol";
import { checkRevision, checkSemaphore } from "../../packages/client/src/answers.ts";
import { compileCheck } from "../../packages/hub/src/http/validation.ts";
import type { FuzzTarget } from "./fuzz.ts";
import { mutate } from "./mutate.ts";

const sha256 = "ab".repeat(32);
const file = {
  path: "bin/program",
  size: 10,
  sha256,
  mode: 0o755,
  version: null,
  backup: false,
  targets: ["role:Server"],
};

/** A request for each kind of body that the hub takes, and the schema that it is held against. */
const BODIES: readonly (readonly [Parameters<typeof compileCheck>[0], unknown])[] = [
  [
    protocol.LoadRequestSchema,
    {
      module: { id: "APP", version: "1.2", name: "App", requires: [] },
      kind: "version",
      note: null,
      declared: {
        roles: [
          {
            path: "Server",
            description: "",
            selectable: true,
            packages: [{ package: "APP/P", subdirectory: "" }],
          },
        ],
        packages: [{ name: "APP/P", description: "", selectable: false, requires: [] }],
      },
      files: [file, { ...file, path: "lib/x" }],
      allowDowngrade: false,
    },
  ],
  [protocol.AssignRequestSchema, { match: "lib/**", add: ["role:Server"], remove: [], only: true }],
  [protocol.RemoveRequestSchema, { match: "lib/**" }],
  [protocol.BundleRequestSchema, { sha256: [sha256, sha256] }],
  [protocol.SettingsSchema, { "Common/AutoUpdate": true, "Common/Revision/Keep": 50 }],
  [protocol.DbQueueStopSchema, { stopped: true }],
  [
    protocol.ExchangeSchema,
    {
      queues: ["\\A"],
      claim: 5,
      free: 3,
      results: [{ step: 1, outcome: "success", message: "done", data: {} }],
    },
  ],
];

/** Bodies of requests: refused by a code, whatever they say. */
export const apiTarget: FuzzTarget<{ readonly at: number; readonly bytes: Buffer }> = {
  name: "api-bodies",
  share: 120,
  prepare: () => {
    const checks = BODIES.map(([schema]) => compileCheck<unknown>(schema, "the body"));
    const samples = BODIES.map(([, body]) => Buffer.from(JSON.stringify(body)));
    return {
      draw: (prng) => {
        const at = prng.below(samples.length);
        return { at, bytes: mutate(samples[at] ?? Buffer.alloc(0), prng, samples) };
      },
      judge: ({ at, bytes }) => {
        checks[at]?.(parseBoundedJson(bytes, "the body"));
        return null;
      },
    };
  },
};

/** What a hub answers: used as it should be, or refused by the place of its fault. */
export const answersTarget: FuzzTarget<{ readonly revision: boolean; readonly bytes: Buffer }> = {
  name: "hub-answers",
  share: 40,
  prepare: () => {
    const semaphore = Buffer.from(JSON.stringify({ revision: 7, autoUpdate: true, pollSeconds: 300 }));
    const revision = Buffer.from(
      JSON.stringify({
        number: 7,
        digest: sha256,
        createdAt: 1_800_000_000_000,
        manifests: [{ target: "role:Server", sha256, size: 10, files: 1, bytes: 10 }],
        updateArchive: { sha256, size: 10 },
        packageClosure: { "APP/P": ["APP/Q"] },
        selectableRoles: ["Server"],
        selectablePackages: [],
      }),
    );
    return {
      draw: (prng) => {
        const isRevision = prng.chance(0.7);
        return { revision: isRevision, bytes: mutate(isRevision ? revision : semaphore, prng) };
      },
      judge: ({ revision: isRevision, bytes }) => {
        let value: unknown;
        try {
          value = JSON.parse(bytes.toString());
        } catch {
          return "no JSON";
        }
        const checked = isRevision ? checkRevision(value, 7) : checkSemaphore(value);
        if ("fault" in checked) return "its form";
        return null;
      },
    };
  },
};
