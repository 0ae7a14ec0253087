import type { Sha256 } from "@lockstep/core";

/** What the hub and the program that makes a step tell each other: JSON, one message a line. */
export type ToMaker =
  /** Which two manifests: files with their texts. */
  | { readonly kind: "plan"; readonly from: string; readonly to: string }
  /** The contents that were asked for, as files, with the bytes that each costs when it is fetched whole. */
  | {
      readonly kind: "make";
      readonly contents: Readonly<Record<Sha256, ContentFile>>;
      /** Where the step is to be written. */
      readonly target: string;
    };

export interface ContentFile {
  readonly path: string;
  readonly wholeBytes: number;
}

export type FromMaker =
  | {
      readonly kind: "needs";
      readonly contents: readonly { readonly sha256: Sha256; readonly size: number }[];
    }
  /** `bytes` null: nothing would be saved, and there is no file. */
  | { readonly kind: "made"; readonly bytes: number | null; readonly results: number };
