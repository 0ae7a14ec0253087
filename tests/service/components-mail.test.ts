import assert from "node:assert/strict";
import { readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LockstepError } from "@lockstep/protocol";
import { StopOrder } from "../../packages/service/src/components/stop-order.ts";
import { makeCertificate } from "../support/certificate.ts";
import { startSmtpServer } from "../support/smtp-server.ts";
import { aStep, run, temporaryDirectory } from "./one-step.ts";

const message = {
  from: "Job Server <jobs@example.org>",
  to: ["a@example.org"],
  subject: "Done",
  text: "All is well.",
};
const account = { user: "jobs", password: "p4ss/word+1" };

const send = (
  t: TestContext,
  port: number,
  parameters: object = {},
  more: object = {},
  options: object = {},
) =>
  run(
    t,
    aStep("Mail.Send", { host: "127.0.0.1", port, security: "none", ...message, ...parameters }, more),
    options,
  );

async function certificate(t: TestContext) {
  const directory = await temporaryDirectory(t);
  const { certFile, keyFile } = await makeCertificate(directory);
  return { certFile, tls: { cert: await readFile(certFile), key: await readFile(keyFile) } };
}

test("a message arrives with its fields, and bcc stands in none of them", async (t) => {
  const server = await startSmtpServer(t);
  const ended = await send(t, server.port, {
    to: ["Ä Name <a@example.org>", "b@example.org"],
    cc: ["c@example.org"],
    bcc: ["d@example.org", "a@example.org"],
    replyTo: "r@example.org",
    subject: "Grüße",
    text: "line one\n.\n.dot\nend é",
    html: "<p>x</p>",
  });
  assert.equal(ended.outcome, "success", ended.message);
  assert.deepEqual(server.faults, []);
  const [mail] = server.mails;
  assert.deepEqual(mail?.to, ["a@example.org", "b@example.org", "c@example.org", "d@example.org"]);
  assert.equal(mail?.from, "jobs@example.org");
  const text = mail?.text ?? "";
  assert.match(text, /^From: Job Server <jobs@example\.org>$/m);
  assert.match(text, /^Reply-To: r@example\.org$/m);
  assert.match(text, /^Subject: =\?UTF-8\?/m);
  assert.doesNotMatch(text, /d@example\.org|^Bcc/im);
  assert.match(text, /\r\n\.\r\n\.dot\r\n/);
});

test("the same step makes the same Message-ID, another one another, without its key in it", async (t) => {
  const server = await startSmtpServer(t);
  const ids: unknown[] = [];
  for (const idempotencyKey of ["key-one", "key-one", "key-two"])
    ids.push((await send(t, server.port, {}, { idempotencyKey })).output.messageId);
  assert.equal(ids[0], ids[1]);
  assert.notEqual(ids[0], ids[2]);
  assert.match(String(ids[0]), /^<[0-9a-f]{40}@example\.org>$/);
  server.mails.forEach(({ text }, index) => {
    assert.ok(text.includes(`Message-ID: ${ids[index]}`));
    assert.ok(!text.includes("key-"));
  });
});

test("nothing injects a header, a command or a recipient", async (t) => {
  const server = await startSmtpServer(t);
  const evil = [
    { subject: "x\r\nBcc: evil@example.net" },
    { subject: "x\u2028y" },
    { to: ["a@example.org, evil@example.net"] },
    { to: ["a@example.org\r\nRCPT TO:<evil@example.net>"] },
    { to: ["a@example.org> <evil@example.net"] },
    { to: ["X\r\nBcc: evil@example.net <a@example.org>"] },
    { cc: ["group: evil@example.net;"] },
    { from: "a@b\nX: y" },
    { replyTo: '"x" <a@b>, evil@example.net' },
    { host: "127.0.0.1\r\nx" },
    { attachments: [{ path: "/etc/hostname", name: "a\r\nX: y" }] },
    { attachments: [{ path: "/etc/hostname", type: "text/plain\r\nX: y" }] },
  ];
  for (const parameters of evil) {
    const ended = await send(t, server.port, parameters);
    assert.deepEqual([ended.outcome, ended.permanent], ["error", true], JSON.stringify(parameters));
    assert.match(ended.message, /JOB_PARAMETERS_INVALID/);
  }
  const odd = await send(t, server.port, {
    to: ["Evil, Bob@x <a@example.org>"],
    text: "X: y\r\n.\r\nMAIL FROM:<evil@example.net>",
  });
  assert.equal(odd.outcome, "success", odd.message);
  assert.deepEqual(
    server.mails.map(({ to }) => to),
    [["a@example.org"]],
  );
  assert.deepEqual(server.faults, []);
});

test("STARTTLS must succeed, with a certificate that is trusted, before anything is said", async (t) => {
  const { certFile, tls } = await certificate(t);
  const server = await startSmtpServer(t, { tls, account });
  process.env.MAIL_PASSWORD = account.password;
  t.after(() => delete process.env.MAIL_PASSWORD);
  const login = { security: "starttls", user: "jobs", passwordEnvironment: "MAIL_PASSWORD" };
  const trusted = await send(t, server.port, { ...login, caFile: certFile });
  assert.equal(trusted.outcome, "success", trusted.message);
  assert.partialDeepStrictEqual(server.mails[0], { isProtected: true, user: "jobs" });
  const stranger = await send(t, server.port, login);
  assert.deepEqual([stranger.outcome, stranger.permanent], ["error", true], stranger.message);
  const without = await startSmtpServer(t, { account });
  const refused = await send(t, without.port, login);
  assert.deepEqual([refused.outcome, refused.permanent], ["error", true], refused.message);
  assert.ok(!without.commands.some((line) => line.startsWith("AUTH") || line.startsWith("MAIL")));
  const implicit = await startSmtpServer(t, { tls, implicitTls: true });
  const inside = await send(t, implicit.port, { security: "tls", caFile: certFile });
  assert.equal(inside.outcome, "success", inside.message);
  assert.equal(implicit.mails[0]?.isProtected, true);
});

test("passwords show nowhere, also when the server repeats them, and not in the open", async (t) => {
  const server = await startSmtpServer(t, { account: { ...account, password: "another" } });
  const file = join(await temporaryDirectory(t), "password");
  await writeFile(file, `${account.password}\n`);
  const refused = await send(t, server.port, { user: "jobs", passwordFile: file });
  assert.deepEqual([refused.outcome, refused.permanent], ["error", true], refused.message);
  assert.match(refused.message, /535/);
  assert.ok(!JSON.stringify(refused).includes(account.password));
  const open = await send(t, server.port, { user: "jobs", password: account.password });
  assert.match(open.message, /does not declare it hidden/);
  const hidden = await send(t, server.port, { user: "jobs", password: "another" }, { hidden: ["password"] });
  assert.equal(hidden.outcome, "success", hidden.message);
  const far = await send(t, server.port, { host: "mail.example.org", user: "jobs", passwordFile: file });
  assert.match(far.message, /unprotected connection/);
});

test("what the server says decides about another try", async (t) => {
  const cases = [
    ["MAIL", "451 later", false],
    ["MAIL", "550 never", true],
    ["RCPT", "450 later", false],
    ["RCPT", "550 nobody here", true],
    [".", "452 full", false],
    [".", "554 spam", true],
    ["GREETING", "421 busy", false],
  ] as const;
  for (const [command, answer, permanent] of cases) {
    const server = await startSmtpServer(t, { answer: (each) => (each === command ? answer : undefined) });
    const ended = await send(t, server.port);
    assert.deepEqual(
      [ended.outcome, ended.permanent],
      ["error", permanent],
      `${command} ${answer}: ${ended.message}`,
    );
    assert.equal(server.mails.length, 0);
  }
  const nobody = await send(t, 1);
  assert.deepEqual([nobody.outcome, nobody.permanent], ["error", false], nobody.message);
  const half = await startSmtpServer(t, {
    answer: (command, line) => (command === "RCPT" && line.includes("b@") ? "550 nobody here" : undefined),
  });
  const ended = await send(t, half.port, { to: ["a@example.org", "b@example.org"] });
  assert.deepEqual(
    [ended.permanent, ended.output.accepted, ended.output.rejected],
    [true, ["a@example.org"], ["b@example.org"]],
  );
});

test("a silent server is given up, and a stop closes the connection", async (t) => {
  const order = new StopOrder();
  const server = await startSmtpServer(t, {
    answer: (command) => {
      if (command !== "MAIL") return undefined;
      order.give(new LockstepError("INTERRUPTED", "the service stops"));
      return null;
    },
  });
  const stopped = await send(t, server.port, {}, {}, { stop: order });
  assert.equal(stopped.outcome, "given-back", stopped.message);
  const silent = await startSmtpServer(t, {
    answer: (command) => (command === "GREETING" ? null : undefined),
  });
  const ended = await send(t, silent.port, { timeLimitSeconds: 1 });
  assert.deepEqual([ended.outcome, ended.permanent], ["error", false], ended.message);
});

test("attachments are files within their limits", async (t) => {
  const server = await startSmtpServer(t);
  const directory = await temporaryDirectory(t);
  const path = join(directory, "réport.bin");
  await writeFile(path, Buffer.from([0, 1, 2, 255]));
  await symlink("/etc", join(directory, "link"));
  const ended = await send(t, server.port, {
    attachments: [{ path }, { path, name: "b.txt", type: "text/plain" }],
  });
  assert.equal(ended.outcome, "success", ended.message);
  const text = server.mails[0]?.text ?? "";
  assert.match(text, /AAEC\/w==/);
  assert.match(text, /Content-Type: text\/plain; name=b\.txt/);
  for (const [attachment, why] of [
    [{ attachments: [{ path }], attachmentsBytes: 3 }, /4 bytes or more/],
    [{ attachments: [{ path: directory }] }, /no file/],
    [{ attachments: [{ path: join(directory, "absent") }] }, /not there/],
    [{ attachments: [{ path: "link/hostname" }], attachmentsBase: directory }, /symbolic link/],
    [{ attachments: [{ path: "/etc/hostname" }], attachmentsBase: directory }, /leads out/],
    [{ attachments: [{ path: "http://127.0.0.1/x" }] }, /relative/],
    [{ text: undefined }, /needs text or html/],
  ] as const) {
    const refused = await send(t, server.port, attachment);
    assert.deepEqual([refused.outcome, refused.permanent], ["error", true], JSON.stringify(attachment));
    assert.match(refused.message, why);
  }
  assert.deepEqual(server.faults, []);
});
