import assert from "node:assert/strict";
import { suite, test } from "node:test";
import fc from "fast-check";
import { type ClaimedJobStep, decideLoss, decideResult, retryDelayMs } from "./job-step.ts";

const step: ClaimedJobStep = {
  state: "processing",
  retries: 0,
  retryDelaySeconds: 0,
  backOff: false,
  ignoreErrors: false,
  freezeOnError: false,
  onCrash: "rerun",
  crashesMax: 5,
  errors: 0,
  crashes: 0,
  losses: 0,
};

const steps: fc.Arbitrary<ClaimedJobStep> = fc.record({
  state: fc.constantFrom("loaded", "processing"),
  retries: fc.nat(3),
  retryDelaySeconds: fc.nat(10),
  backOff: fc.boolean(),
  ignoreErrors: fc.boolean(),
  freezeOnError: fc.boolean(),
  onCrash: fc.constantFrom("rerun", "freeze"),
  crashesMax: fc.integer({ min: 1, max: 5 }),
  errors: fc.nat(4),
  crashes: fc.nat(4),
  losses: fc.nat(20),
});

suite("the end of a claim", () => {
  test("an error is tried again while there are tries, after the wait that grows", () => {
    const trying = { ...step, retries: 2, retryDelaySeconds: 10, backOff: true };
    const first = decideResult(trying, { outcome: "error" });
    assert.deepEqual(
      { state: first.state, delayMs: first.delayMs, errors: first.errors },
      { state: "deferred", delayMs: 10_000, errors: 1 },
    );
    assert.equal(decideResult({ ...trying, errors: 1 }, { outcome: "error" }).delayMs, 20_000);
    assert.equal(decideResult({ ...trying, errors: 2 }, { outcome: "error" }).outcome, "error");
    assert.equal(decideResult(trying, { outcome: "error", permanent: true }).outcome, "error");
    assert.equal(decideResult({ ...trying, retryDelaySeconds: 0 }, { outcome: "error" }).state, "ready");
    assert.equal(retryDelayMs({ retryDelaySeconds: 86_400, backOff: true }, 40), 86_400_000);
  });

  test("after the last try: ignored before frozen before the error successors", () => {
    const error = { outcome: "error" } as const;
    assert.equal(
      decideResult({ ...step, ignoreErrors: true, freezeOnError: true }, error).outcome,
      "ignored",
    );
    assert.equal(decideResult({ ...step, freezeOnError: true }, error).state, "frozen");
    assert.equal(decideResult(step, error).outcome, "error");
  });

  test("giving back and deferring take no try", () => {
    fc.assert(
      fc.property(steps, fc.nat(10_000), (any, deferMs) => {
        for (const outcome of ["given-back", "deferred"] as const) {
          const end = decideResult(any, { outcome, deferMs });
          assert.deepEqual([end.errors, end.crashes, end.losses], [any.errors, any.crashes, any.losses]);
          assert.ok(end.state === "ready" || end.state === "deferred");
        }
      }),
    );
  });

  test("what must not run twice unasked does not, once it may have begun", () => {
    fc.assert(
      fc.property(steps, fc.constantFrom("service-ended", "unknown-to-service"), (any, loss) => {
        const end = decideLoss({ ...any, onCrash: "freeze", state: "processing" }, loss);
        assert.equal(end.state, loss === "service-ended" ? "frozen" : "missing");
        assert.equal(decideLoss({ ...any, onCrash: "freeze", state: "loaded" }, loss).state, "ready");
      }),
    );
  });

  test("a step that kills its service is frozen in the end, wherever the service dies", () => {
    for (const state of ["loaded", "processing"] as const) {
      let poison = { ...step, state };
      let services = 0;
      for (let end = decideLoss(poison, "service-ended"); ; end = decideLoss(poison, "service-ended")) {
        services += 1;
        poison = { ...poison, errors: end.errors, crashes: end.crashes, losses: end.losses };
        if (end.state === "frozen") break;
        assert.ok(services < 1000);
      }
      assert.equal(services, state === "processing" ? 5 : 20);
    }
  });

  test("outcome exactly with finished, delay exactly with deferred; tries never fall", () => {
    const results = fc.record({
      outcome: fc.constantFrom("success", "error", "given-back", "deferred"),
      permanent: fc.boolean(),
      deferMs: fc.integer({ min: -5, max: 1e12 }),
    });
    fc.assert(
      fc.property(steps, results, fc.boolean(), (any, result, lost) => {
        const end = lost ? decideLoss(any, "service-ended") : decideResult(any, result);
        assert.equal(end.outcome !== null, end.state === "finished");
        assert.equal(end.delayMs !== null, end.state === "deferred");
        assert.ok(end.delayMs === null || (end.delayMs > 0 && end.delayMs <= 31_536_000_000));
        assert.ok(end.errors >= any.errors && end.crashes >= any.crashes && end.losses >= any.losses);
      }),
    );
  });
});
