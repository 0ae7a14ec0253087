import { randomBytes, randomUUID } from "node:crypto";

/** Chance as a parameter, so that a simulation can repeat it. Not the place for keys: these always come from the system. */
export interface Random {
  /** A number from 0 (included) to 1 (excluded). */
  next(): number;
  /** An identifier that nobody else draws: a UUID, version 4. */
  uuid(): string;
  /** `length` bytes as lower-case hex: for names of temporary files. */
  hex(length: number): string;
}

/** The machine's own source. */
export const systemRandom: Random = {
  // 48 bits are what a number holds exactly with room to spare.
  next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
  uuid: () => randomUUID(),
  hex: (length) => randomBytes(length).toString("hex"),
};
