import { readFile } from "node:fs/promises";
import { systemErrorCode } from "@lockstep/platform";
import { usage } from "./options.ts";

/** The secret for enrolling: from a file, else LOCKSTEP_ENROLMENT. Never an argument, which every user of a machine can read. */
export async function readEnrolmentSecret(path: string | undefined, demanded: true): Promise<string>;
export async function readEnrolmentSecret(path: string | undefined, demanded: false): Promise<string | null>;
export async function readEnrolmentSecret(
  path: string | undefined,
  demanded: boolean,
): Promise<string | null> {
  if (path !== undefined) {
    try {
      return (await readFile(path, "utf8")).trim();
    } catch (error) {
      throw usage(`the file ${path} cannot be read`, "a readable file", systemErrorCode(error) ?? "an error");
    }
  }
  const given = process.env.LOCKSTEP_ENROLMENT?.trim() ?? "";
  if (given !== "") return given;
  if (!demanded) return null;
  throw usage("no secret for enrolling was given", "--secret-file FILE or LOCKSTEP_ENROLMENT", "neither");
}
