import { once } from "node:events";
import type pg from "pg";
import { from as copyFrom } from "pg-copy-streams";

/** The most bytes that one row of content_part holds. */
export const PART_BYTES = 1024 * 1024;

const SIGNATURE = Buffer.from("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", "latin1");
const TRAILER = Buffer.from([0xff, 0xff]);
const ROW_HEAD_BYTES = 2 + 4 + 8 + 4 + 4 + 4;
/** Small rows are gathered up to this size: one message each would cost more than the bytes. */
const GATHER_BYTES = 64 * 1024;
/**
 * How much may wait for the database. It takes rows in while the hub decodes the next contents; were nothing to wait, the
 * one would stand still while the other works.
 */
const WAITING_BYTES = 4 * 1024 * 1024;
/**
 * After so many bytes a COPY is ended and the next one begun. Within one PostgreSQL (15 to 18) holds up to a thousand rows
 * before it writes them; its other bound, 64 KiB, counts what arrives as text alone, and ours is binary. With parts of 1 MiB
 * its memory grew with the content, up to a gigabyte.
 */
const COPY_BYTES = 16 * 1024 * 1024;
/** From this size on bytes go out as they are: copying them would cost more than a message. */
const DIRECT_BYTES = 16 * 1024;

/**
 * Rows of content_part on their way into the database, by binary COPY, one after the other in the client's transaction.
 *
 * Each `row` waits while too much waits for the database, and that is what holds back whoever feeds us. The connection can
 * do nothing else until `finish` or `abort`; after either it is in its transaction as after any other statement.
 */
export class PartsCopy {
  readonly #client: pg.PoolClient;
  #stream: ReturnType<typeof copyFrom>;
  #failure: Error | null = null;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #bytes = 0;
  /** Of these the ones that the present COPY has taken. */
  #copyBytes = 0;

  constructor(client: pg.PoolClient) {
    this.#client = client;
    this.#stream = this.#begin();
  }

  #begin(): ReturnType<typeof copyFrom> {
    const stream = this.#client.query(
      copyFrom("copy content_part (content, seq, bytes) from stdin (format binary)", {
        highWaterMark: WAITING_BYTES,
      }),
    );
    // Stays for the life of the stream: an error that comes between two rows must not end the process.
    stream.on("error", (error: Error) => {
      this.#failure ??= error;
    });
    this.#copyBytes = 0;
    this.#gather(SIGNATURE);
    return stream;
  }

  /** Bytes of content so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Writes one row of the content with this id. The bytes must not change any more. */
  async row(content: number, seq: number, bytes: Uint8Array): Promise<void> {
    if (bytes.length > PART_BYTES) throw new RangeError(`a part of ${bytes.length} bytes`);
    if (this.#copyBytes >= COPY_BYTES) {
      await this.finish();
      this.#stream = this.#begin();
    }
    const head = Buffer.allocUnsafe(ROW_HEAD_BYTES);
    head.writeInt16BE(3, 0);
    head.writeInt32BE(8, 2);
    head.writeBigInt64BE(BigInt(content), 6);
    head.writeInt32BE(4, 14);
    head.writeInt32BE(seq, 18);
    head.writeInt32BE(bytes.length, 22);
    this.#bytes += bytes.length;
    this.#copyBytes += bytes.length;
    this.#gather(head);
    const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    if (value.length >= DIRECT_BYTES) {
      await this.#flush();
      await this.#write(value);
      return;
    }
    this.#gather(value);
    if (this.#gatheredBytes >= GATHER_BYTES) await this.#flush();
  }

  /** Ends the COPY; every row is in the transaction then. */
  async finish(): Promise<void> {
    this.#gather(TRAILER);
    await this.#flush();
    const finished = once(this.#stream, "finish");
    this.#stream.end();
    await finished.catch((error: unknown) => {
      throw this.#failure ?? error;
    });
  }

  /** Makes the database forget the rows. The transaction is then failed; roll it back. Never throws. */
  async abort(): Promise<void> {
    if (this.#failure !== null || this.#stream.destroyed) return;
    const closed = new Promise((resolve) => this.#stream.once("close", resolve));
    this.#stream.destroy(new Error("the load was given up"));
    await closed;
  }

  #gather(bytes: Buffer): void {
    this.#gathered.push(bytes);
    this.#gatheredBytes += bytes.length;
  }

  async #flush(): Promise<void> {
    const chunk = this.#gathered.length === 1 ? this.#gathered[0] : Buffer.concat(this.#gathered);
    this.#gathered = [];
    this.#gatheredBytes = 0;
    if (chunk !== undefined) await this.#write(chunk);
  }

  async #write(chunk: Buffer): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    if (this.#stream.write(chunk)) return;
    try {
      await once(this.#stream, "drain");
    } catch (error) {
      throw this.#failure ?? error;
    }
  }
}
