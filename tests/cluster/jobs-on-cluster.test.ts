import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { askedSeed } from "@lockstep/testing";
import { usePostgres } from "../support/postgres.ts";
import { findEtcd } from "./etcd-cluster.ts";
import { runJobCluster } from "./job-cluster.ts";
import { JobLab } from "./job-lab.ts";

const server = usePostgres();
const etcd = findEtcd();

/** `npm run sim -- --job-cluster` runs it with fifty. */
const FAILOVERS = Number(process.env.LOCKSTEP_JOB_CLUSTER_FAILOVERS ?? 5);
const SEED = askedSeed(20261123);

suite("the job service on a virtual server", {
  skip: JobLab.unable ?? (etcd === null && "etcd is not on this machine (Debian package etcd-server)"),
}, () => {
  test(`${FAILOVERS} failovers: no step lost or recorded twice, one log, one owner, its settings (seed ${SEED})`, async (t) => {
    const began = Date.now();
    const report = await runJobCluster(t, server, etcd ?? "", {
      seed: SEED,
      failovers: FAILOVERS,
      progress: (text) => {
        const line = `${Math.round((Date.now() - began) / 1000)} s: ${text}`;
        t.diagnostic(line);
        // A long run shows where it is.
        if (FAILOVERS > 10) process.stderr.write(`${line}\n`);
      },
    });
    t.diagnostic(JSON.stringify({ ...report, problems: report.problems.length }));
    assert.deepEqual(report.problems.slice(0, 20), []);
    assert.ok(report.terms > FAILOVERS);
    assert.ok(report.samples > 0 && report.steps > 100 && report.logRecords > report.steps);
  });
});
