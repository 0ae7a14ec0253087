import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect as connectPlain, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { connect } from "node:tls";
import { silentLogger, systemClock } from "@lockstep/platform";
import fc from "fast-check";
import { bootClock } from "../boot-clock.ts";
import { measurePeer, PeerChannel } from "./peer-channel.ts";
import { FRAME_BYTES_MAX, FrameReader, formatFrame, type PeerLeaseEvent } from "./peer-frames.ts";

const KEY = randomBytes(32);

async function open(t: TestContext, node: string, key = KEY) {
  const heard: { from: string; server: string; event: PeerLeaseEvent }[] = [];
  let wake = () => {};
  const now = bootClock();
  const channel = new PeerChannel({
    node,
    key,
    log: silentLogger,
    clock: systemClock,
    answer: () => ({ node, instance: `${node}#1`, version: "1.2.3", monotonicMs: now(), wallMs: Date.now() }),
    heard: (from, server, event) => {
      heard.push({ from, server, event });
      wake();
    },
  });
  const port = await channel.listen("127.0.0.1:0");
  t.after(() => channel.close());
  const until = async (count: number) => {
    while (heard.length < count) await new Promise<void>((resolve) => (wake = resolve));
  };
  return { channel, address: `127.0.0.1:${port}`, port, heard, until };
}

/** Whether by an end or by a reset is nobody's. */
const closed = (socket: Socket) =>
  new Promise<void>((resolve) => socket.on("error", () => {}).once("close", () => resolve()));

const asked = (member: string, round: number): PeerLeaseEvent => ({ kind: "asked", member, token: 3, round });

test("daemons with one key tell each other about leases, each under its own name", async (t) => {
  const [alpha, beta] = [await open(t, "alpha"), await open(t, "beta")];
  alpha.channel.send(beta.address, "APP", asked("alpha", 1));
  alpha.channel.send(beta.address, "APP", asked("alpha", 2));
  await beta.until(2);
  assert.deepEqual(beta.heard, [
    { from: "alpha", server: "APP", event: asked("alpha", 1) },
    { from: "alpha", server: "APP", event: asked("alpha", 2) },
  ]);
  // Who speaks for another node is dropped, and may come back as itself.
  alpha.channel.send(beta.address, "APP", asked("gamma", 3));
  beta.channel.send(alpha.address, "APP", asked("beta", 4));
  await alpha.until(1);
  for (let round = 5; beta.heard.length < 3; round++) {
    alpha.channel.send(beta.address, "APP", asked("alpha", round));
    await Promise.race([beta.until(3), systemClock.sleep(20)]);
  }
  assert.ok(beta.heard.every(({ event }) => event.member === "alpha"));
});

test("a daemon is measured: who it is, its version, its clocks", async (t) => {
  const beta = await open(t, "beta");
  const options = {
    address: beta.address,
    node: "alpha",
    monotonic: bootClock(),
    clock: systemClock,
    spanMs: 200,
  };
  const found = await measurePeer({ ...options, key: KEY, timeoutMs: 120_000 });
  assert.equal(found.node, "beta");
  assert.equal(found.version, "1.2.3");
  assert.ok(Math.abs(found.wallOffsetMs) <= found.roundTripMs + 2, `${found.wallOffsetMs}`);
  // One machine has one clock; it is told in hundredths of a second.
  assert.ok(Math.abs(found.rateError) <= found.rateUncertainty + 20 / 200, `${found.rateError}`);
  await assert.rejects(measurePeer({ ...options, key: randomBytes(32), timeoutMs: 120_000 }), {
    code: "CLUSTER_KEY_DIFFERS",
  });
  await beta.channel.close();
  await assert.rejects(measurePeer({ ...options, key: KEY, timeoutMs: 120_000 }), {
    code: "PEER_UNREACHABLE",
  });
});

test("whoever does not have the key, or sends what is no message, is dropped and harms nobody", async (t) => {
  const [alpha, beta] = [await open(t, "alpha"), await open(t, "beta")];
  const plain = connectPlain(beta.port, "127.0.0.1");
  const isClosed = closed(plain);
  plain.write("GET / HTTP/1.1\r\n\r\n");
  await isClosed;
  const secure = async (bytes: Buffer) => {
    const socket = connect({
      host: "127.0.0.1",
      port: beta.port,
      maxVersion: "TLSv1.2",
      ciphers: "ECDHE-PSK-CHACHA20-POLY1305",
      pskCallback: () => ({ psk: KEY, identity: "lockstep:gamma" }),
      checkServerIdentity: () => undefined,
    });
    const isClosed = closed(socket);
    await once(socket, "secureConnect");
    socket.resume();
    socket.write(bytes);
    await isClosed;
  };
  const huge = Buffer.alloc(4);
  huge.writeUInt32BE(FRAME_BYTES_MAX + 1);
  await secure(huge);
  const broken = Buffer.from("....{]}");
  broken.writeUInt32BE(3);
  await secure(broken);
  const strange = Buffer.from('....{"kind":"shutdown"}');
  strange.writeUInt32BE(strange.length - 4);
  await secure(strange);
  alpha.channel.send(beta.address, "APP", asked("alpha", 1));
  await beta.until(1);
  assert.equal(beta.heard.length, 1);
});

test("messages come back from any cut of the stream, and no bytes make the reader take what is none", () => {
  const message = { kind: "lease", server: "APP", event: asked("alpha", 7) } as const;
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 40 }), (cuts) => {
      const bytes = Buffer.concat([formatFrame(message), formatFrame({ kind: "hello", call: 1 })]);
      const reader = new FrameReader();
      const found = [];
      let start = 0;
      for (const cut of cuts) {
        found.push(...reader.read(bytes.subarray(start, start + cut)));
        start += cut;
      }
      found.push(...reader.read(bytes.subarray(start)));
      assert.deepEqual(found, [message, { kind: "hello", call: 1 }]);
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        assert.deepEqual(new FrameReader().read(Buffer.from(bytes)), []);
      } catch (error) {
        assert.ok(error instanceof Error && !(error instanceof assert.AssertionError));
      }
    }),
  );
});
