import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type Dependency, isFulfilled, providersOf } from "./resource-dependency.ts";
import {
  DEFAULT_RESOURCE_POLICY,
  findPolicyFaults,
  judgeFailover,
  type ResourcePhase,
  type ResourcePolicy,
  virtualServerStatus,
} from "./resource-policy.ts";
import {
  nextVirtualServerWake,
  startVirtualServer,
  statusOf,
  stepVirtualServer,
  type VirtualServerEffect,
  type VirtualServerEvent,
} from "./virtual-server.ts";

const POLICIES: Record<string, Partial<ResourcePolicy>> = {
  address: {},
  disk: {},
  name: { dependency: [["address"]] },
  service: { dependency: [["name"], ["disk"]] },
  share: { dependency: [["service"]] },
};

class Story {
  readonly options: Map<string, ResourcePolicy>;
  state;
  now = 0;
  constructor(policies: Record<string, Partial<ResourcePolicy>> = POLICIES) {
    this.options = new Map(
      Object.entries(policies).map(([name, policy]) => [name, { ...DEFAULT_RESOURCE_POLICY, ...policy }]),
    );
    this.state = startVirtualServer(this.options.keys());
  }

  at(now: number, event: VirtualServerEvent = { kind: "tick" }): string[] {
    this.now = now;
    const { state, effects } = stepVirtualServer(this.state, event, now, this.options);
    this.state = state;
    return effects.map((effect) =>
      "resource" in effect ? `${effect.kind} ${effect.resource}` : effect.kind,
    );
  }

  reports(resource: string, report: Extract<VirtualServerEvent, { kind: "reported" }>["report"]): string[] {
    return this.at(this.now, { kind: "reported", resource, report });
  }

  phase(resource: string): ResourcePhase | undefined {
    return this.state.resources.get(resource)?.phase;
  }

  online(): this {
    const orders = this.at(this.now, { kind: "bring-online" });
    while (orders.length > 0) {
      const [kind, resource = ""] = (orders.shift() ?? "").split(" ");
      if (kind === "online") orders.push(...this.reports(resource, "online"));
    }
    assert.equal(statusOf(this.state), "online");
    return this;
  }
}

test("comes online in the order of what needs what, and goes offline in the reverse", () => {
  const server = new Story();
  assert.deepEqual(server.at(0, { kind: "bring-online" }), ["online address", "online disk"]);
  assert.deepEqual(server.reports("address", "online"), ["online name"]);
  assert.deepEqual(server.reports("name", "online"), []);
  assert.deepEqual(server.reports("disk", "online"), ["online service"]);
  assert.deepEqual(server.reports("service", "online"), ["online share"]);
  server.reports("share", "online");
  assert.deepEqual(server.at(1, { kind: "take-offline" }), ["offline share"]);
  assert.deepEqual(server.reports("share", "offline"), ["offline service"]);
  assert.deepEqual(server.reports("service", "offline"), ["offline disk", "offline name"]);
  assert.deepEqual(server.reports("disk", "offline"), []);
  assert.deepEqual(server.reports("name", "offline"), ["offline address"]);
  assert.deepEqual(server.reports("address", "offline"), ["all-offline"]);
});

test("one that fails takes those along who need it, is restarted, and they follow", () => {
  const server = new Story().online();
  assert.deepEqual(server.at(100, { kind: "reported", resource: "name", report: "failed" }), [
    "terminate name",
    "offline share",
  ]);
  assert.equal(statusOf(server.state), "failed");
  assert.deepEqual(server.reports("share", "offline"), ["offline service"]);
  server.reports("service", "offline");
  assert.deepEqual(server.at(149), []);
  assert.deepEqual(server.at(150), ["online name"]);
  assert.deepEqual(server.reports("name", "online"), ["online service"]);
});

test("restarts up to the threshold within the period; one failure more moves the virtual server", () => {
  const server = new Story({ service: {} }).online();
  for (const now of [1000, 2000, 3000]) {
    assert.deepEqual(server.at(now, { kind: "reported", resource: "service", report: "offline" }), [
      "terminate service",
    ]);
    assert.deepEqual(server.at(now + 50), ["online service"]);
    server.reports("service", "online");
  }
  assert.deepEqual(server.at(4000, { kind: "reported", resource: "service", report: "failed" }), [
    "terminate service",
    "fail-over service",
  ]);
  assert.equal(nextVirtualServerWake(server.state, server.options), null);
  assert.deepEqual(server.at(5000, { kind: "stay" }), []);
  assert.equal(nextVirtualServerWake(server.state, server.options), 4000 + 3_600_000);
  // Asked once more, it is answered once more; the retry time is as it was.
  assert.deepEqual(server.at(6000, { kind: "ask-again" }), ["fail-over service"]);
  assert.deepEqual(server.at(6000, { kind: "ask-again" }), [], "one question at a time");
  assert.deepEqual(server.at(7000, { kind: "stay" }), []);
  assert.deepEqual(server.at(4000 + 3_600_000), ["online service"]);
  assert.deepEqual(server.at(4000 + 3_600_001, { kind: "ask-again" }), [], "it is being tried");
});

test("what failed is tried at once when somebody asks for it, and what waits for its restart is not asked about", () => {
  const server = new Story({ service: { restartThreshold: 1, restartDelayMs: 50 } }).online();
  assert.deepEqual(server.reports("service", "failed"), ["terminate service"]);
  assert.deepEqual(server.at(10, { kind: "ask-again" }), []);
  assert.deepEqual(server.at(60), ["online service"]);
  assert.deepEqual(server.reports("service", "failed"), ["terminate service", "fail-over service"]);
  assert.deepEqual(server.at(70, { kind: "stay" }), []);
  assert.deepEqual(server.at(80, { kind: "bring-online" }), ["online service"]);
  server.reports("service", "online");
  // It may be restarted in place as often as at first.
  assert.deepEqual(server.at(90, { kind: "reported", resource: "service", report: "failed" }), [
    "terminate service",
  ]);
});

test("failures outside the period are forgotten", () => {
  const server = new Story({ service: {} }).online();
  for (let failure = 0; failure < 12; failure++) {
    server.at(failure * 300_000, { kind: "reported", resource: "service", report: "failed" });
    const orders = server.at(failure * 300_000 + 50);
    assert.deepEqual(orders, ["online service"]);
    server.reports("service", "online");
  }
});

test("restart without failover, and no restart at all, are honoured", () => {
  const fail = (story: Story) => story.reports("service", "failed");
  const still = new Story({ service: { restartAction: "none", retryMs: null } }).online();
  assert.deepEqual(fail(still), ["terminate service"]);
  assert.equal(nextVirtualServerWake(still.state, still.options), null);
  const stays = new Story({ service: { restartAction: "restart", restartThreshold: 0 } }).online();
  assert.deepEqual(fail(stays), ["terminate service"]);
  assert.equal(statusOf(stays.state), "failed");
});

test("one of two providers is enough, and nothing moves while one is left", () => {
  const server = new Story({
    one: { restartAction: "none" },
    two: {},
    name: { dependency: [["one", "two"]] },
  }).online();
  assert.deepEqual(server.reports("one", "failed"), ["terminate one"]);
  assert.equal(server.phase("name"), "online");
  assert.deepEqual(server.reports("two", "failed"), ["terminate two", "offline name"]);
});

test("the time limit counts from the last report, not from the beginning", () => {
  const server = new Story({ service: { pendingMs: 1000, restartThreshold: 0, restartAction: "restart" } });
  server.at(0, { kind: "bring-online" });
  server.at(900, { kind: "reported", resource: "service", report: "busy" });
  assert.deepEqual(server.at(1899), []);
  assert.deepEqual(server.at(1900), ["terminate service"]);
  assert.equal(server.phase("service"), "failed");
});

test("one that does not go is ended, and counts as offline", () => {
  const server = new Story({ service: { pendingMs: 1000 } }).online();
  server.at(10, { kind: "take-offline" });
  assert.deepEqual(server.at(1010), ["terminate service", "all-offline"]);
});

test("looks quickly and thoroughly, and a check that hangs is a failure", () => {
  const server = new Story({ service: {} }).online();
  assert.equal(nextVirtualServerWake(server.state, server.options), 5000);
  assert.deepEqual(server.at(5000), ["check service"]);
  assert.deepEqual(server.at(6000), []);
  server.reports("service", "healthy");
  assert.equal(nextVirtualServerWake(server.state, server.options), 11_000);
  server.at(11_000);
  assert.deepEqual(server.at(11_000 + 180_000), ["terminate service"]);
});

test("stopping for an update is no failure; what still stands still afterwards is", () => {
  const server = new Story({ service: {} }).online();
  server.at(10, { kind: "maintenance", resource: "service", on: true });
  assert.deepEqual(server.reports("service", "offline"), []);
  assert.deepEqual(server.at(400_000), []);
  assert.deepEqual(server.at(500_000, { kind: "maintenance", resource: "service", on: false }), [
    "check service",
  ]);
  assert.deepEqual(server.reports("service", "failed"), ["terminate service"]);
});

test("the state of a virtual server follows five rules", () => {
  const phases: ResourcePhase[] = ["offline", "online-pending", "online", "offline-pending", "failed"];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...phases), { maxLength: 4 }), (drawn) => {
      const count = (phase: ResourcePhase) => drawn.filter((each) => each === phase).length;
      const status = virtualServerStatus(drawn);
      const pending = count("online-pending") + count("offline-pending");
      assert.equal(status === "failed", count("failed") > 0);
      assert.equal(status === "pending", count("failed") === 0 && pending > 0);
      assert.equal(status === "offline", count("offline") === drawn.length);
      assert.equal(status === "online", drawn.length > 0 && count("online") === drawn.length);
    }),
  );
});

test("so many failovers in a period, and one more is refused", () => {
  let history: readonly number[] = [];
  const limit = { threshold: 5, periodMs: 3 * 3_600_000 };
  for (let at = 1; at <= 5; at++) {
    const judged = judgeFailover(history, at, limit, 2);
    assert.ok(judged.allowed);
    history = judged.history;
  }
  assert.equal(judgeFailover(history, 6, limit, 2).allowed, false);
  assert.equal(judgeFailover(history, 1 + limit.periodMs, limit, 2).allowed, true);
  assert.equal(judgeFailover([], 0, { threshold: null, periodMs: 1 }, 3).threshold, 2);
  assert.equal(judgeFailover([], 0, { threshold: null, periodMs: 1 }, 1).allowed, false);
});

test("figures that make no sense are named", () => {
  assert.deepEqual(findPolicyFaults(DEFAULT_RESOURCE_POLICY), []);
  assert.deepEqual(
    findPolicyFaults({ ...DEFAULT_RESOURCE_POLICY, looksAliveMs: 0, retryMs: 1 }).map(({ field }) => field),
    ["looksAliveMs", "retryMs"],
  );
});

const NAMES = ["a", "b", "c", "d", "e"];
/** Each needs only those before it, so there are no circles. */
const graph: fc.Arbitrary<Record<string, Partial<ResourcePolicy>>> = fc
  .tuple(
    ...NAMES.map((_, index) =>
      fc.array(
        fc.array(fc.constantFrom(...NAMES.slice(0, Math.max(1, index))), { minLength: 1, maxLength: 2 }),
        { maxLength: index === 0 ? 0 : 2 },
      ),
    ),
  )
  .map((needs) =>
    Object.fromEntries(
      NAMES.map((name, index) => [
        name,
        {
          dependency: needs[index] ?? [],
          pendingMs: 50,
          looksAliveMs: 20,
          isAliveMs: 30,
          restartPeriodMs: 200,
          retryMs: 300,
          restartDelayMs: 5,
          restartThreshold: 2,
        },
      ]),
    ),
  );

type Move = {
  readonly pick: number;
  readonly does: "answers" | "fails" | "waits" | "flips" | "stays" | "loses";
};
const moves: fc.Arbitrary<Move[]> = fc.array(
  fc.record({
    pick: fc.nat(100),
    does: fc.constantFrom("answers", "answers", "answers", "fails", "waits", "flips", "stays", "loses"),
  }),
  { maxLength: 120 },
);

test("whatever fails: never online before what it needs, never offline under who needs it, and in the end as wanted", () => {
  fc.assert(
    fc.property(graph, moves, (policies, drawn) => {
      const server = new Story(policies);
      const needs = (name: string): Dependency => policies[name]?.dependency ?? [];
      /** What is truly running, as the resources themselves know. */
      const running = new Set<string>();
      const open = new Map<string, "online" | "offline">();
      let isLosing = false;
      const obey = (effects: readonly string[]): void => {
        for (const effect of effects) {
          const [kind, name = ""] = effect.split(" ");
          if (kind === "online") {
            assert.ok(
              isFulfilled(needs(name), (each) => running.has(each)),
              `${name} is brought online too early`,
            );
            open.set(name, "online");
          } else if (kind === "offline") {
            for (const other of NAMES)
              if (
                running.has(other) &&
                open.get(other) !== "offline" &&
                providersOf(needs(other)).includes(name)
              )
                assert.ok(
                  server.state.wanted === "online" &&
                    isFulfilled(needs(other), (each) => each !== name && running.has(each)),
                  `${name} goes while ${other} needs it`,
                );
            open.set(name, "offline");
          } else if (kind === "terminate") {
            running.delete(name);
            open.delete(name);
          } else if (kind === "all-offline") {
            assert.equal(running.size, 0);
            assert.ok(!isLosing, "nobody takes a lost lease for one that was left in order");
          }
        }
      };
      const say = (event: VirtualServerEvent) => {
        const result = stepVirtualServer(server.state, event, server.now, server.options);
        server.state = result.state;
        obey(
          result.effects.map((effect: VirtualServerEffect) =>
            "resource" in effect ? `${effect.kind} ${effect.resource}` : effect.kind,
          ),
        );
      };
      const answer = (pick: number) => {
        const [name, wish] = [...open][pick % Math.max(1, open.size)] ?? [];
        if (name === undefined || wish === undefined) return;
        open.delete(name);
        if (wish === "online") running.add(name);
        else running.delete(name);
        say({ kind: "reported", resource: name, report: wish });
      };
      say({ kind: "bring-online" });
      for (const { pick, does } of drawn) {
        server.now += pick % 13;
        if (does === "answers") answer(pick);
        else if (does === "waits") say({ kind: "tick" });
        else if (does === "flips") say({ kind: pick % 2 === 0 ? "take-offline" : "bring-online" });
        else if (does === "stays") say({ kind: pick % 3 === 0 ? "ask-again" : "stay" });
        else if (does === "loses") {
          isLosing = true;
          say({ kind: "abandon" });
          isLosing = false;
          assert.deepEqual([...running, ...open.keys()], [], "all of it is ended, whatever it was doing");
          assert.equal(statusOf(server.state), "offline");
        } else {
          const name = NAMES[pick % NAMES.length] ?? "a";
          if (running.has(name) || open.has(name))
            say({ kind: "reported", resource: name, report: "failed" });
        }
      }
      for (const [wish, status] of [
        ["bring-online", "online"],
        ["take-offline", "offline"],
      ] as const) {
        say({ kind: wish });
        for (let round = 0; round < 200; round++) {
          server.now += 3;
          answer(0);
          for (const [name, { checkingSince }] of server.state.resources)
            if (checkingSince !== null) say({ kind: "reported", resource: name, report: "healthy" });
          say({ kind: "stay" });
        }
        assert.equal(statusOf(server.state), status);
      }
      assert.equal(running.size, 0);
    }),
    { numRuns: 300 },
  );
});
