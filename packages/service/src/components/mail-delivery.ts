import { readFile } from "node:fs/promises";
import MailComposer from "nodemailer/lib/mail-composer";
import SMTPConnection from "nodemailer/lib/smtp-connection";

/** One message on one connection, which is closed at once when the step has to stop. */
export interface Letter {
  readonly messageId: string;
  readonly from: Address;
  readonly to: readonly Address[];
  readonly cc: readonly Address[];
  readonly replyTo: Address | null;
  /** Addresses of everybody who gets it. */
  readonly recipients: readonly string[];
  readonly subject: string;
  readonly text: string | undefined;
  readonly html: string | undefined;
  readonly attachments: readonly {
    readonly name: string;
    readonly type: string | undefined;
    readonly content: Buffer;
  }[];
}

interface Address {
  readonly name: string;
  readonly address: string;
}

export interface Account {
  readonly user: string;
  readonly password: string;
}

export interface SendOptions {
  readonly host: string;
  readonly port: number;
  readonly security: "starttls" | "tls" | "none";
  readonly caFile: string | null;
  readonly account: Account | null;
  /** How long the server may say nothing. */
  readonly silenceMs: number;
}

export type Delivery =
  | {
      readonly kind: "sent";
      readonly accepted: readonly string[];
      readonly rejected: readonly string[];
      /** Why somebody was rejected. */
      readonly problem: string;
      readonly response: string;
    }
  | { readonly kind: "failed"; readonly problem: string; readonly isPermanent: boolean };

/** Sends it. Throws the reason of the signal only; what the server or the network says is the answer. */
export async function sendLetter(
  letter: Letter,
  options: SendOptions,
  signal: AbortSignal,
): Promise<Delivery> {
  signal.throwIfAborted();
  let connection: SMTPConnection | null = null;
  const stop = () => connection?.close();
  try {
    const [message, ca] = [
      await compose(letter),
      options.caFile === null ? undefined : await readFile(options.caFile),
    ];
    connection = new SMTPConnection({
      host: options.host,
      port: options.port,
      secure: options.security === "tls",
      requireTLS: options.security === "starttls",
      ignoreTLS: options.security === "none",
      connectionTimeout: options.silenceMs,
      greetingTimeout: options.silenceMs,
      socketTimeout: options.silenceMs,
      dnsTimeout: options.silenceMs,
      logger: false,
      tls: { minVersion: "TLSv1.2", ...(ca === undefined ? {} : { ca }) },
    });
    signal.addEventListener("abort", stop, { once: true });
    return await converse(connection, letter, message, options.account);
  } catch (error) {
    signal.throwIfAborted();
    return { kind: "failed", problem: describe(error), isPermanent: isPermanent(error) };
  } finally {
    signal.removeEventListener("abort", stop);
    connection?.close();
  }
}

async function converse(
  connection: SMTPConnection,
  letter: Letter,
  message: Buffer,
  account: Account | null,
): Promise<Delivery> {
  // A connection that breaks says so here; a step of the conversation that waits then would wait for ever.
  let fail: (error: unknown) => void = () => {};
  const broken = new Promise<never>((_, reject) => {
    fail = reject;
  });
  broken.catch(() => {});
  connection.on("error", fail);
  connection.on("end", () => fail(new Error("the connection was closed")));
  const step = <Value>(begin: (done: (error?: unknown, value?: Value) => void) => void) =>
    Promise.race([
      broken,
      new Promise<Value | undefined>((resolve, reject) =>
        begin((error, value) => (error ? reject(error) : resolve(value))),
      ),
    ]);
  await step<void>((done) => connection.connect((error) => done(error)));
  if (account !== null)
    await step<void>((done) =>
      connection.login({ user: account.user, pass: account.password }, (error) => done(error)),
    );
  const info = await step<SMTPConnection.SentMessageInfo>((done) =>
    connection.send({ from: letter.from.address, to: [...letter.recipients] }, message, done),
  );
  connection.removeListener("error", fail).on("error", () => {});
  connection.quit();
  return {
    kind: "sent",
    accepted: info?.accepted ?? [],
    rejected: info?.rejected ?? [],
    problem: (info?.rejectedErrors ?? []).map((error) => error.response ?? error.message).join("; "),
    response: info?.response ?? "",
  };
}

async function compose(letter: Letter): Promise<Buffer> {
  const composer = new MailComposer({
    messageId: letter.messageId,
    from: { ...letter.from },
    to: letter.to.map((each) => ({ ...each })),
    cc: letter.cc.map((each) => ({ ...each })),
    ...(letter.replyTo === null ? {} : { replyTo: { ...letter.replyTo } }),
    subject: letter.subject,
    ...(letter.text === undefined ? {} : { text: letter.text }),
    ...(letter.html === undefined ? {} : { html: letter.html }),
    attachments: letter.attachments.map(({ name, type, content }) => ({
      filename: name,
      content,
      ...(type === undefined ? {} : { contentType: type }),
    })),
    // Nothing in a message may make us read files or fetch addresses.
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return await composer.compile().build();
}

interface SmtpFault {
  readonly code: string;
  readonly responseCode: number | null;
}

function faultOf(error: unknown): SmtpFault {
  const { code, responseCode } = error as { readonly code?: unknown; readonly responseCode?: unknown };
  return {
    code: typeof code === "string" ? code : "",
    responseCode: typeof responseCode === "number" ? responseCode : null,
  };
}

/** RFC 5321, 4.2.1: 5yz stays as it is, 4yz may pass. A protection that cannot be had does not come by itself. */
function isPermanent(error: unknown): boolean {
  const { code, responseCode } = faultOf(error);
  if (responseCode !== null) return responseCode >= 500;
  // The library puts ESOCKET over the code of a certificate that is refused; what is left is the text of OpenSSL.
  if (code === "ESOCKET" && error instanceof Error && /certificate|altname|SSL routines/i.test(error.message))
    return true;
  return ["ETLS", "EAUTH", "EENVELOPE", "ENOENT", "EACCES", "ENOAUTH"].includes(code);
}

function describe(error: unknown): string {
  const { code } = faultOf(error);
  const message = error instanceof Error ? error.message : String(error);
  return code === "" || message.startsWith(code) ? message : `${code}: ${message}`;
}
