import { createHash } from "node:crypto";
import { LockstepError } from "@lockstep/protocol";
import { CHANGES_ENTRIES_MAX, type KeyRole, packChanges } from "@lockstep/trust";
import { Type } from "typebox";
import { documentOf, newerDocuments, newestDocument } from "../../trust/documents.ts";
import { releaseEntries } from "../../trust/releases.ts";
import { sendJsonText, sendNotModified } from "../answers.ts";
import { matchesTag } from "../conditions.ts";
import type { HubServer } from "../server.ts";
import type { HubServices } from "../services.ts";

const closed = { additionalProperties: false };
const Version = Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 });
const VERSIONED = /^([1-9]\d{0,15})\.(root|targets|snapshot)\.json$/;
const IMMUTABLE = "public, max-age=31536000, immutable";

/**
 * Signed metadata under the names that TUF gives it (consistent snapshots). A numbered document never changes, so any
 * cache may keep it for ever; `timestamp.json` and `root.json` are asked for anew each time. Nothing here needs to be
 * believed: it proves itself.
 */
export function registerTrust(app: HubServer, services: HubServices): void {
  const tags = ["trust"];
  app.get(
    "/v1/trust/:name",
    {
      schema: {
        summary: "A document of signed metadata (TUF)",
        description:
          "`timestamp.json`, `N.root.json`, `N.snapshot.json`, `N.targets.json`, or `root.json` for the newest root.",
        tags,
        params: Type.Object({ name: Type.String({ maxLength: 64 }) }, closed),
        produces: ["application/json"],
      },
    },
    async (request, reply) => {
      services.repository();
      const { name } = request.params;
      const match = VERSIONED.exec(name);
      const stored =
        match?.[1] !== undefined && match[2] !== undefined
          ? await documentOf(services.pool, match[2] as KeyRole, Number(match[1]))
          : name === "timestamp.json" || name === "root.json"
            ? await newestDocument(services.pool, name === "root.json" ? "root" : "timestamp")
            : null;
      if (stored === null)
        throw new LockstepError("NOT_FOUND", `there is no signed document ${name}`, {
          hint: "Nothing is signed before the first software revision.",
        });
      const tag = `"${createHash("sha256").update(stored.bytes).digest("hex")}"`;
      void reply.header("etag", tag).header("cache-control", match === null ? "no-cache" : IMMUTABLE);
      if (matchesTag(request.headers["if-none-match"], tag)) return sendNotModified(reply);
      return reply.header("content-type", "application/json").send(stored.bytes);
    },
  );

  app.get(
    "/v1/trust/changes",
    {
      schema: {
        summary: "All signed metadata that is newer than what somebody has, in one answer",
        description:
          "`root`, `snapshot` and `targets` are the versions that are known, `log` the number of releases in the log of " +
          "`epoch`. One zstd frame: the documents, and the entries of the log after that number. A shorter way to the " +
          "same documents; whoever does not find one here asks for it by its name.",
        tags,
        querystring: Type.Object(
          { root: Version, snapshot: Version, targets: Version, epoch: Version, log: Version },
          closed,
        ),
        produces: ["application/zstd"],
      },
    },
    async (request, reply) => {
      services.repository();
      const { root, snapshot, targets, epoch, log } = request.query;
      const found = await newerDocuments(services.pool, { root, snapshot, targets });
      const entries = await releaseEntries(services.pool, epoch, log, log + CHANGES_ENTRIES_MAX);
      const documents = new Map<string, Uint8Array | null>();
      for (const { role, version, bytes } of found)
        documents.set(role === "timestamp" ? "timestamp.json" : `${version}.${role}.json`, bytes);
      const roots = found.filter(({ role }) => role === "root").length;
      // That there is no next root is worth telling: it is the first thing that would be asked.
      const next = `${root + roots + 1}.root.json`;
      if ((await documentOf(services.pool, "root", root + roots + 1)) === null) documents.set(next, null);
      void reply.header("cache-control", "no-cache").header("content-type", "application/zstd");
      return reply.send(await packChanges({ documents, entries }));
    },
  );

  app.get(
    "/v1/trust/log/:epoch",
    {
      schema: {
        summary: "Entries of the log of releases, in order",
        tags,
        params: Type.Object({ epoch: Type.Integer({ minimum: 0 }) }, closed),
        querystring: Type.Object(
          { after: Type.Integer({ minimum: 0 }), to: Type.Integer({ minimum: 0 }) },
          closed,
        ),
        produces: ["application/json"],
      },
    },
    async (request, reply) => {
      services.repository();
      const { after, to } = request.query;
      const entries = await releaseEntries(services.pool, request.params.epoch, after, to);
      return sendJsonText(reply, JSON.stringify({ entries }));
    },
  );
}
