import { type Disk, type FileStat, isWithoutLinks } from "@lockstep/platform";

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
    if (!isWithoutLinks(error)) throw error;
  }
  mayCopy();
  if (stat.kind === "link") disk.symlink(disk.readLink(from), to);
  else disk.copyFile(from, to, stat.mode);
  return "copied";
}
