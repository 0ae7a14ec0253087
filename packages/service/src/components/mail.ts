import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { resolvePath } from "./file-paths.ts";
import { type Account, type Letter, type SendOptions, sendLetter } from "./mail-delivery.ts";
import { defineTask, permanentError } from "./task.ts";
import type { Component, ParameterValues, TaskContext, TaskResult } from "./types.ts";

/**
 * Mail by SMTP (RFC 5321). The Message-ID comes from the step's idempotency key, so a step that runs again because its
 * service died after the server had taken the message sends the same message: a mailbox that looks at ids keeps one.
 *
 * Values of a process end up in addresses and the subject, so an address is exactly one address, and nothing that could
 * begin another header field or command is let through.
 */
const TIME_LIMIT_DEFAULT_S = 60;
const ATTACHMENTS_BYTES_DEFAULT = 10 * 1024 * 1024;
const ATTACHMENTS_BYTES_MAX = 100 * 1024 * 1024;
const RECIPIENTS_MAX = 100;

const PARAMETERS = {
  host: { type: "text", required: true, check: hostProblem, description: "The mail server." },
  port: {
    type: "integer",
    minimum: 1,
    maximum: 65_535,
    description: "Its port. Without it: 465 with `tls`, else 587, and 25 with `none`.",
  },
  security: {
    type: "text",
    choices: ["starttls", "tls", "none"],
    default: "starttls",
    description:
      "How the connection is protected: by STARTTLS, which must succeed; from its first byte; or not at all.",
  },
  caFile: {
    type: "text",
    description: "A file of certificates in PEM that are trusted instead of the machine's own.",
  },
  user: { type: "text", description: "The name to log in with. Without it: no login." },
  passwordEnvironment: {
    type: "text",
    check: (value: unknown) =>
      /^LOCKSTEP_/i.test(String(value)) ? "must not name what begins with LOCKSTEP_" : null,
    description: "The variable of the service's environment that holds the password.",
  },
  passwordFile: { type: "text", description: "The file that holds the password." },
  password: {
    type: "text",
    hidden: true,
    description: "The password itself, only where the step declares it hidden.",
  },
  from: {
    type: "text",
    required: true,
    check: addressProblem,
    description: "The sender: `name@host` or `Name <name@host>`.",
  },
  to: {
    type: "texts",
    required: true,
    check: addressesProblem,
    description: "Recipients, one address each.",
  },
  cc: { type: "texts", default: [], check: addressesProblem, description: "Recipients of copies." },
  bcc: {
    type: "texts",
    default: [],
    check: addressesProblem,
    description: "Recipients that nobody else sees.",
  },
  replyTo: { type: "text", check: addressProblem, description: "Where answers go." },
  subject: { type: "text", required: true, check: lineProblem, description: "The subject, in one line." },
  text: { type: "text", description: "The message as plain text." },
  html: { type: "text", description: "The message as HTML." },
  attachments: {
    type: "list",
    default: [],
    check: attachmentsProblem,
    description: 'Files to attach, as `{"path": …, "name": …, "type": …}`; name and type may be left out.',
  },
  attachmentsBase: { type: "text", description: "A directory that no attachment may lie outside of." },
  attachmentsBytes: {
    type: "integer",
    minimum: 0,
    maximum: ATTACHMENTS_BYTES_MAX,
    default: ATTACHMENTS_BYTES_DEFAULT,
    description: "What all attachments may have together.",
  },
  timeLimitSeconds: {
    type: "integer",
    minimum: 1,
    maximum: 3_600,
    default: TIME_LIMIT_DEFAULT_S,
    description: "How long the mail server may be silent.",
  },
} as const;
type Parameters = ParameterValues<typeof PARAMETERS>;

export const component: Component = {
  name: "Mail",
  tasks: {
    Send: defineTask({
      execution: "either",
      description: "Sends one message by SMTP.",
      parameters: PARAMETERS,
      run: send,
    }),
  },
};

async function send(context: TaskContext<Parameters>): Promise<TaskResult> {
  const { parameters, step, signal, log } = context;
  if (parameters.text === undefined && parameters.html === undefined)
    return permanentError("a message needs text or html");
  const recipients = [...parameters.to, ...parameters.cc, ...parameters.bcc].map(parseAddress);
  if (recipients.length > RECIPIENTS_MAX)
    return permanentError(`${recipients.length} recipients are more than ${RECIPIENTS_MAX}`);
  const account = await readAccount(context);
  if (typeof account === "string") return permanentError(account);
  const attachments = await readAttachments(parameters);
  if (typeof attachments === "string") return permanentError(attachments);
  const from = parseAddress(parameters.from);
  const messageId = messageIdOf(step.idempotencyKey, from.address);
  const letter: Letter = {
    messageId,
    from,
    to: parameters.to.map(parseAddress),
    cc: parameters.cc.map(parseAddress),
    replyTo: parameters.replyTo === undefined ? null : parseAddress(parameters.replyTo),
    recipients: [...new Set(recipients.map(({ address }) => address))],
    subject: parameters.subject,
    text: parameters.text,
    html: parameters.html,
    attachments,
  };
  const ended = await sendLetter(letter, serverOf(parameters, account), signal);
  const output = {
    messageId,
    ...(ended.kind === "failed" ? {} : { accepted: ended.accepted, rejected: ended.rejected }),
  };
  if (ended.kind === "failed")
    return {
      kind: "error",
      message: `${parameters.host}: ${ended.problem}`,
      permanent: ended.isPermanent,
      output,
    };
  log.info(`${parameters.host} took ${messageId}: ${ended.response}`);
  // Trying again would send it once more to those who have it.
  if (ended.rejected.length > 0)
    return permanentError(`sent, but not to ${ended.rejected.join(", ")}: ${ended.problem}`, output);
  return { kind: "success", message: `sent to ${ended.accepted.length}: ${ended.response}`, output };
}

function serverOf(parameters: Parameters, account: Account | null): SendOptions {
  const { security, host } = parameters;
  return {
    host,
    port: parameters.port ?? (security === "tls" ? 465 : security === "starttls" ? 587 : 25),
    security,
    caFile: parameters.caFile ?? null,
    account,
    silenceMs: parameters.timeLimitSeconds * 1000,
  };
}

/** Who logs in, null for nobody, or why that cannot be. */
async function readAccount(context: TaskContext<Parameters>): Promise<Account | null | string> {
  const { user, passwordEnvironment, passwordFile, password, security, host } = context.parameters;
  const given = [passwordEnvironment, passwordFile, password].filter((each) => each !== undefined).length;
  if (user === undefined) return given === 0 ? null : "a password was given, but no user";
  if (given !== 1) return "exactly one of passwordEnvironment, passwordFile and password is needed with user";
  if (password !== undefined && !context.step.hidden.includes("password"))
    return "password stands in the step, which does not declare it hidden; use passwordEnvironment or passwordFile";
  if (security === "none" && !/^(localhost|127\.\d+\.\d+\.\d+|::1)$/.test(host))
    return "a password is not sent over an unprotected connection to another machine";
  const found =
    password ??
    (passwordEnvironment === undefined
      ? (await readFile(passwordFile ?? "", "utf8")).replace(/\r?\n$/, "")
      : (context.environment[passwordEnvironment] ?? process.env[passwordEnvironment]));
  if (found === undefined || found === "")
    return `the service's environment has no variable ${passwordEnvironment}`;
  context.hide(found);
  return { user, password: found };
}

async function readAttachments(parameters: Parameters): Promise<Letter["attachments"] | string> {
  const attachments: {
    readonly name: string;
    readonly type: string | undefined;
    readonly content: Buffer;
  }[] = [];
  let bytes = 0;
  for (const { path, name, type } of parameters.attachments as readonly AttachmentParameter[]) {
    const file = await resolvePath("attachments", path, {
      base: parameters.attachmentsBase,
      followLinks: false,
    });
    const found = await stat(file).catch(() => null);
    if (found === null || !found.isFile()) return `the attachment ${file} is not there, or no file`;
    bytes += found.size;
    if (bytes > parameters.attachmentsBytes)
      return `the attachments have ${bytes} bytes or more, and may have ${parameters.attachmentsBytes}`;
    attachments.push({ name: name ?? basename(file), type, content: await readFile(file) });
  }
  return attachments;
}

/** The same for every run of a step, and telling nothing of its key. */
export function messageIdOf(key: string, from: string): string {
  const digest = createHash("sha256").update(`mail ${key}`).digest("hex").slice(0, 40);
  return `<${digest}@${from.slice(from.lastIndexOf("@") + 1)}>`;
}

interface AttachmentParameter {
  readonly path: string;
  readonly name?: string;
  readonly type?: string;
}

const ADDRESS = /^[^\s<>()[\]\\,;:"@\p{C}]+@[^\s<>()[\]\\,;:"@\p{C}]+$/u;
const NAMED = /^([^<>"\\\p{C}]*)<([^<>]+)>$/u;

/** A checked address. */
function parseAddress(text: string): { readonly name: string; readonly address: string } {
  const named = NAMED.exec(text.trim());
  return named === null
    ? { name: "", address: text.trim() }
    : { name: (named[1] ?? "").trim(), address: (named[2] ?? "").trim() };
}

function addressProblem(value: unknown): string | null {
  const { address } = parseAddress(String(value));
  return !/[\r\n]/.test(String(value)) && ADDRESS.test(address) && address.length <= 254
    ? null
    : "must be one address, name@host or Name <name@host>";
}

function addressesProblem(value: unknown): string | null {
  const list = value as readonly string[];
  return list.every((each) => addressProblem(each) === null)
    ? null
    : "must hold one address each, name@host or Name <name@host>";
}

function lineProblem(value: unknown): string | null {
  return /[\p{Cc}\u2028\u2029]/u.test(String(value)) ? "must be one line without control characters" : null;
}

function hostProblem(value: unknown): string | null {
  return /^[A-Za-z0-9.:_-]+$/.test(String(value)) ? null : "must be the name or address of a host";
}

function attachmentsProblem(value: unknown): string | null {
  const isAttachment = (each: unknown) =>
    typeof each === "object" &&
    each !== null &&
    "path" in each &&
    typeof each.path === "string" &&
    (!("name" in each) || (typeof each.name === "string" && /^[^/\\\p{Cc}]{1,200}$/u.test(each.name))) &&
    (!("type" in each) ||
      (typeof each.type === "string" && /^[a-z0-9.+-]+\/[a-z0-9.+-]+$/i.test(each.type))) &&
    Object.keys(each).every((name) => ["path", "name", "type"].includes(name));
  return (value as readonly unknown[]).every(isAttachment)
    ? null
    : "must be a list of objects with path and, where wanted, a plain name and a type such as text/plain";
}
