/**
 * A small strict mail server for tests (RFC 5321): it takes nothing that the standard does not allow, in no other order,
 * and keeps what it took. STARTTLS, TLS from the first byte, AUTH PLAIN and LOGIN.
 */

import type { AddressInfo } from "node:net";
import { createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { createServer as createTlsServer, TLSSocket } from "node:tls";

export interface SmtpRules {
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
  /** TLS from the first byte. */
  readonly implicitTls?: boolean;
  readonly account?: { readonly user: string; readonly password: string };
  /** An answer to a command instead of the usual one; `MAIL`, `RCPT`, `DATA`, `.`, `EHLO`, `GREETING`. Null: silence. */
  readonly answer?: (command: string, line: string) => string | null | undefined;
}

export interface TakenMail {
  readonly from: string;
  readonly to: readonly string[];
  /** As it came, dots taken back, lines ended by CR LF. */
  readonly text: string;
  readonly isProtected: boolean;
  readonly user: string | null;
}

export interface SmtpServer {
  readonly port: number;
  readonly mails: readonly TakenMail[];
  /** Everything against the standard that was seen. */
  readonly faults: readonly string[];
  readonly commands: readonly string[];
}

const LINE_BYTES_MAX = 1_000;

/** Starts one on a free port; ends with the test. */
export async function startSmtpServer(t: TestContext, rules: SmtpRules = {}): Promise<SmtpServer> {
  const state = { mails: [] as TakenMail[], faults: [] as string[], commands: [] as string[] };
  const sockets = new Set<Socket>();
  const onConnection = (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
    new Session(socket, rules, state).begin();
  };
  const server: Server =
    rules.implicitTls === true && rules.tls !== undefined
      ? createTlsServer(rules.tls, onConnection).on("tlsClientError", () => {})
      : createServer(onConnection);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { ...state, port: (server.address() as AddressInfo).port };
}

interface Seen {
  readonly mails: TakenMail[];
  readonly faults: string[];
  readonly commands: string[];
}

class Session {
  #socket: Socket;
  readonly #rules: SmtpRules;
  readonly #state: Seen;
  #input = Buffer.alloc(0);
  #isProtected: boolean;
  #greeted = false;
  #user: string | null = null;
  #from: string | null = null;
  #to: string[] = [];
  #data: string[] | null = null;
  #login: string[] | null = null;

  constructor(socket: Socket, rules: SmtpRules, state: Seen) {
    this.#socket = socket;
    this.#rules = rules;
    this.#state = state;
    this.#isProtected = rules.implicitTls === true;
  }

  begin(): void {
    this.#listen();
    this.#say("GREETING", "", "220 test ESMTP");
  }

  #listen(): void {
    this.#socket.on("error", () => {});
    this.#socket.on("data", (chunk: Buffer) => {
      this.#input = Buffer.concat([this.#input, chunk]);
      for (let end = this.#input.indexOf("\n"); end >= 0; end = this.#input.indexOf("\n")) {
        const line = this.#input.subarray(0, end + 1);
        this.#input = this.#input.subarray(end + 1);
        if (line.length > LINE_BYTES_MAX) this.#fault(`a line of ${line.length} bytes`);
        if (line[line.length - 2] !== 13) this.#fault("a line that ends without CR");
        if (line.subarray(0, -2).includes(13)) this.#fault("a CR inside a line");
        this.#take(line.subarray(0, -2).toString("latin1"));
      }
    });
  }

  #fault(problem: string): void {
    this.#state.faults.push(problem);
  }

  #say(command: string, line: string, usual: string): boolean {
    const answer = this.#rules.answer?.(command, line);
    if (answer === null) return false;
    this.#socket.write(`${answer ?? usual}\r\n`);
    return answer === undefined || /^[23]/.test(answer);
  }

  #take(line: string) {
    if (this.#data !== null) return this.#takeData(line, this.#data);
    if (this.#login !== null) return this.#takeLogin(line, this.#login);
    if (/[^\x20-\x7e]/.test(line)) this.#fault(`a command with other than ASCII: ${JSON.stringify(line)}`);
    this.#state.commands.push(line);
    const verb = line.split(" ", 1)[0]?.toUpperCase() ?? "";
    switch (verb) {
      case "EHLO": {
        if (!/^EHLO \S+$/i.test(line)) this.#fault(`not an EHLO: ${line}`);
        const offers = [
          ...(this.#rules.tls !== undefined && !this.#isProtected ? ["STARTTLS"] : []),
          ...(this.#rules.account === undefined ? [] : ["AUTH PLAIN LOGIN"]),
          "SIZE 1000000",
        ];
        const text = ["test", ...offers]
          .map((each, index, all) => `250${index === all.length - 1 ? " " : "-"}${each}`)
          .join("\r\n");
        this.#greeted = this.#say("EHLO", line, text);
        return;
      }
      case "STARTTLS":
        return this.#startTls();
      case "AUTH":
        return this.#authenticate(line);
      case "MAIL": {
        const from = /^MAIL FROM:<([^<>\s]*)>( SIZE=\d+)?$/i.exec(line)?.[1];
        if (!this.#greeted || this.#from !== null || from === undefined) return this.#refuse(line);
        if (this.#say("MAIL", line, "250 ok")) this.#from = from;
        return;
      }
      case "RCPT": {
        const to = /^RCPT TO:<([^<>\s]+@[^<>\s]+)>$/i.exec(line)?.[1];
        if (this.#from === null || to === undefined) return this.#refuse(line);
        if (this.#say("RCPT", line, "250 ok")) this.#to.push(to);
        return;
      }
      case "DATA":
        if (this.#to.length === 0 || line !== "DATA") return this.#refuse(line);
        if (this.#say("DATA", line, "354 go on")) this.#data = [];
        return;
      case "QUIT":
        this.#socket.end("221 bye\r\n");
        return;
      case "RSET":
        this.#from = null;
        this.#to = [];
        this.#say("RSET", line, "250 ok");
        return;
      default:
        this.#refuse(line);
    }
  }

  #refuse(line: string): void {
    this.#fault(`out of order or malformed: ${JSON.stringify(line)}`);
    this.#socket.write("503 no\r\n");
  }

  #takeData(line: string, data: string[]): void {
    if (line !== ".") {
      data.push(line.startsWith(".") ? line.slice(1) : line);
      return;
    }
    this.#data = null;
    const mail = {
      from: this.#from ?? "",
      to: this.#to,
      text: Buffer.from(data.join("\r\n"), "latin1").toString("utf8"),
      isProtected: this.#isProtected,
      user: this.#user,
    };
    this.#from = null;
    this.#to = [];
    // Taken before it is said: whoever does not hear of it may send it again.
    if (!/^[45]/.test(this.#rules.answer?.(".", "") ?? "")) this.#state.mails.push(mail);
    this.#say(".", "", "250 taken");
  }

  #startTls() {
    const { tls } = this.#rules;
    if (tls === undefined || this.#isProtected) return this.#refuse("STARTTLS");
    if (this.#input.length > 0) this.#fault("more behind STARTTLS");
    this.#socket.write("220 go ahead\r\n");
    this.#socket.removeAllListeners("data");
    const socket = new TLSSocket(this.#socket, { isServer: true, ...tls });
    this.#socket = socket;
    this.#isProtected = true;
    this.#greeted = false;
    this.#listen();
  }

  #authenticate(line: string) {
    const plain = /^AUTH PLAIN (\S+)$/i.exec(line)?.[1];
    if (plain !== undefined) {
      const [, user = "", password = ""] = Buffer.from(plain, "base64").toString().split("\0");
      return this.#check(user, password);
    }
    if (!/^AUTH LOGIN$/i.test(line)) return this.#refuse(line);
    this.#login = [];
    this.#socket.write("334 VXNlcm5hbWU6\r\n");
  }

  #takeLogin(line: string, login: string[]): void {
    login.push(Buffer.from(line, "base64").toString());
    if (login.length === 1) {
      this.#socket.write("334 UGFzc3dvcmQ6\r\n");
      return;
    }
    this.#login = null;
    this.#check(login[0] ?? "", login[1] ?? "");
  }

  #check(user: string, password: string): void {
    const { account } = this.#rules;
    const isRight = account !== undefined && user === account.user && password === account.password;
    if (isRight) this.#user = user;
    this.#socket.write(isRight ? "235 welcome\r\n" : `535 not you, ${user} ${password}\r\n`);
  }
}
