import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LockstepError, type SigningStatus } from "@lockstep/protocol";
import { externalSigner, makeSecret, signerOf } from "@lockstep/trust";
import { startTestHub } from "./hub.ts";
import { documentOf, type ErrorDocument, ended, lockstep, start, temporaryDirectory } from "./lockstep.ts";

/**
 * Keys that are elsewhere: a token of SoftHSM by PKCS#11 (pkcs11-sign.py), or openssl with a key in a file. The secret never
 * comes into a process of ours, and what a command gives counts only if it is a signature.
 */
const MODULE = [
  "/usr/lib/softhsm/libsofthsm2.so",
  "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
  "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
].find((path) => existsSync(path));
const PYTHON = "/usr/bin/python3";
const HAS_TOKENS =
  MODULE !== undefined &&
  spawnSync("pkcs11-tool", ["--help"]).error === undefined &&
  spawnSync(PYTHON, ["-c", "import PyKCS11"]).status === 0;

interface OutsideKey {
  readonly publicKey: string;
  readonly command: readonly string[];
}

/** A key in a token that belongs to this test. */
function tokenKey(directory: string, name: string): OutsideKey {
  const conf = join(directory, "softhsm.conf");
  const env = { ...process.env, SOFTHSM2_CONF: conf };
  if (!existsSync(conf)) {
    mkdirSync(join(directory, "tokens"));
    writeFileSync(conf, `directories.tokendir = ${join(directory, "tokens")}\nobjectstore.backend = file\n`);
    execFileSync(
      "softhsm2-util",
      ["--init-token", "--free", "--label", "t", "--so-pin", "1234", "--pin", "1234"],
      { env, stdio: "pipe" },
    );
  }
  const id = Buffer.from(name).toString("hex");
  const tool = ["--module", MODULE ?? "", "--token-label", "t", "--login", "--pin", "1234"];
  const make = ["--keypairgen", "--key-type", "EC:edwards25519", "--id", id, "--label", name];
  execFileSync("pkcs11-tool", [...tool, ...make], { env, stdio: "pipe" });
  const publicKey = join(directory, `${name}.pem`);
  const read = ["--read-object", "--type", "pubkey", "--id", id, "--output-file", publicKey];
  execFileSync("pkcs11-tool", [...tool, ...read], { env, stdio: "pipe" });
  const sign = [PYTHON, join(import.meta.dirname, "pkcs11-sign.py"), MODULE ?? "", "t", "1234", id];
  return { publicKey, command: ["env", `SOFTHSM2_CONF=${conf}`, ...sign] };
}

/** A key of openssl: a shell wraps it, since it signs files only. */
function opensslKey(directory: string, name: string): OutsideKey {
  const secret = join(directory, `${name}.key`);
  const publicKey = join(directory, `${name}.pem`);
  execFileSync("openssl", ["genpkey", "-algorithm", "ed25519", "-out", secret], { stdio: "pipe" });
  execFileSync("openssl", ["pkey", "-in", secret, "-pubout", "-out", publicKey], { stdio: "pipe" });
  const script = `cat > "$1.in" && openssl pkeyutl -sign -rawin -inkey "$1" -in "$1.in"`;
  return { publicKey, command: ["sh", "-c", script, "sign", secret] };
}

async function drill(t: TestContext, make: (directory: string, name: string) => OutsideKey): Promise<void> {
  const root = temporaryDirectory(t);
  const hub = await startTestHub(root);
  t.after(() => hub.stop());
  const run = async (...args: string[]) => {
    const ended = await lockstep(args, { env: hub.env });
    assert.equal(ended.status, 0, `${args.join(" ")}\n${ended.stdout}${ended.stderr}`);
    return ended;
  };
  const signerFile = async (role: string, name: string) => {
    const { publicKey, command } = make(root, name);
    const file = join(root, `${name}.json`);
    await run("keys", "signer", file, "--role", role, "--public-key", publicKey, "--", ...command);
    return file;
  };
  const load = async (text: string) => {
    mkdirSync(join(root, "product"), { recursive: true });
    writeFileSync(join(root, "product/program"), text);
    const what = [
      "load",
      join(root, "product"),
      "--module",
      "APP",
      "--version",
      text,
      "--assign",
      "*=Server",
    ];
    return await lockstep([...what, "--yes", "--json"], { env: hub.env });
  };
  await load("1");
  const app = join(root, "app");
  await run("install", app, "--role", "Server");
  const [rootKey, release] = [await signerFile("root", "r"), await signerFile("targets", "a")];
  const status = documentOf<SigningStatus>(
    await run("keys", "init", "--signer", rootKey, "--signer", release, "--json"),
  );
  assert.deepEqual(
    status.roles.map(({ role, keys }) => [role, keys.map(({ onHub }) => onHub)]),
    [
      ["root", [false]],
      ["targets", [false]],
      ["snapshot", [true]],
      ["timestamp", [true]],
    ],
  );
  assert.deepEqual(
    readdirSync(join(root, "hub/keys"))
      .map((name) => name.split("-")[0])
      .sort(),
    ["orders", "snapshot", "timestamp"],
  );
  assert.equal(documentOf<ErrorDocument>(await load("2")).error.code, "REVISION_AWAITS_SIGNATURE");
  await run("revision", "sign", "--signer", release, "--yes");
  await run("update", app);
  // Another release key, by the root key that is elsewhere; then the former one counts for nothing.
  const next = await signerFile("targets", "b");
  await run("keys", "rotate", "targets", "--signer", rootKey, "--signer", next);
  await load("3");
  const former = await lockstep(["revision", "sign", "--signer", release, "--yes", "--json"], {
    env: hub.env,
  });
  assert.equal(documentOf<ErrorDocument>(former).error.code, "SIGNATURE_REFUSED");
  await run("revision", "sign", "--signer", next, "--yes");
  await run("update", app);
  assert.equal(readFileSync(join(app, "program"), "utf8"), "3");
  // Back, by a permit that the key elsewhere signs.
  const { installations } = documentOf<{ installations: { id: string }[] }>(
    await run("fleet", "list", "--json"),
  );
  const id = installations[0]?.id ?? "";
  await run("fleet", "order", id, "newest");
  await load("4");
  await run("revision", "sign", "--signer", next, "--yes");
  await run("update", app);
  assert.equal(readFileSync(join(app, "program"), "utf8"), "4");
  await run("fleet", "permit", id, "3", "--signer", next);
  await run("update", app);
  assert.equal(readFileSync(join(app, "program"), "utf8"), "3");
}

test("root and release keys in a PKCS#11 token sign releases, rotations and permits", async (t) => {
  if (!HAS_TOKENS) return t.skip("softhsm2, opensc and python3-pykcs11 are not installed");
  await drill(t, tokenKey);
});

test("the same with any command that signs its standard input", async (t) => {
  if (HAS_TOKENS) return t.skip("the token shows the same");
  await drill(t, opensslKey);
});

test("whoever describes a key is told what is waited for while its command has not signed", async (t) => {
  const directory = temporaryDirectory(t);
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const [go, key] = [join(directory, "go"), join(directory, "key.pem")];
  writeFileSync(key, publicKey.export({ type: "spki", format: "pem" }));
  // It signs only when the test says so, which it does when it has been told.
  const program = `const c=require("node:crypto"),f=require("node:fs");let d;process.stdin.once("data",(x)=>{d=x});const t=setInterval(()=>{if(d&&f.existsSync(${JSON.stringify(go)})){clearInterval(t);process.stdout.write(c.sign(null,d,${JSON.stringify(privateKey.export({ type: "pkcs8", format: "pem" }))}))}},20)`;
  const file = join(directory, "signer");
  const child = start([
    ...["keys", "signer", file, "--role", "root", "--public-key", key],
    ...["--json", "--", process.execPath, "-e", program],
  ]);
  const end = ended(child);
  let told = "";
  await new Promise<void>((resolve, reject) => {
    child.once("close", () => reject(new Error(`it ended: ${told}`)));
    child.stderr?.on("data", (text: string) => {
      told += text;
      if (told.includes("\n")) resolve();
    });
  });
  assert.ok(told.startsWith(`Waiting for ${process.execPath} to sign something`), told);
  assert.match(told, /PIN/);
  writeFileSync(go, "");
  const { status, stdout, stderr } = await end;
  assert.equal(status, 0, stderr);
  assert.equal((JSON.parse(stdout) as { file: string }).file, file);
});

test("what a signing command gives counts only if it is a signature by its key", async () => {
  const { key } = signerOf(makeSecret());
  const refusal = async (command: readonly string[], signMs?: number) => {
    try {
      await externalSigner({ key, command }, signMs).sign(Buffer.from("bytes"));
    } catch (error) {
      if (error instanceof LockstepError) return error;
      throw error;
    }
    return assert.fail("signed");
  };
  const attempt = async (...command: string[]) => (await refusal(command)).code;
  for (const command of [
    ["/nowhere/signer"],
    ["false"],
    ["true"],
    ["head", "-c", "64", "/dev/zero"],
    ["cat", "/dev/zero"],
    ["sh", "-c", "kill $$"],
    // What a script starts outlives the script, and holds its output open.
    ["sh", "-c", "cat /dev/zero; true"],
  ])
    assert.equal(await attempt(...command), "SIGNER_FAILED", command.join(" "));
  const late = await refusal(["sh", "-c", "cat /dev/zero >&2; true"], 100);
  assert.deepEqual([late.code, late.expected], ["SIGNER_FAILED", "a signature within 0.1 s"]);
  // The control: the same command with the key that it has.
  const secret = makeSecret();
  const program = `const c=require("node:crypto");process.stdin.once("data",(d)=>process.stdout.write(c.sign(null,d,c.createPrivateKey({key:Buffer.from(process.argv[1],"base64"),format:"der",type:"pkcs8"}))))`;
  const command = [process.execPath, "-e", program, Buffer.from(secret).toString("base64")];
  assert.equal(await attempt(...command), "SIGNER_FAILED", "another key");
  const own = externalSigner({ key: signerOf(secret).key, command });
  assert.equal((await own.sign(Buffer.from("bytes"))).length, 64);
});
