import { type Disk, type FileStat, systemErrorCode } from "@lockstep/platform";

/** What systems say when a file can have no second name here: forbidden, unsupported, too many, elsewhere. */
const NO_LINKS = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV"]);

/**
 * Gives a file or a symbolic link a second name, or copies it where it can have none. `stat` is what stands at `from`;
 * `mayCopy` is asked before a copy is made. Throws the system's error. Not durable.
 */
export function keepSecondName(
  disk: Disk,
  from: string,
  to: string,
  stat: FileStat,
  mayCopy: () => void = () => {},
): "linked" | "copied" {
  try {
    disk.link(from, to);
    return "linked";
  } catch (error) {
    if (!NO_LINKS.has(systemErrorCode(error) ?? "")) throw error;
  }
  mayCopy();
  if (stat.kind === "link") disk.symlink(disk.readLink(from), to);
  else disk.copyFile(from, to, stat.mode);
  return "copied";
}
