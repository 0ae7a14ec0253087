import type { ResourceDefinition } from "@lockstep/core";
import { SettingReader } from "./setting-reader.ts";

/** What the settings of a `mount` say. */
export interface MountSettings {
  /** A block device, an image file (with the option `loop`), `server:/path`, `//server/share`, or a directory to bind. */
  readonly device: string;
  readonly directory: string;
  /** As `mount -t` wants it; `bind`: shows another directory. */
  readonly type: string;
  readonly options: readonly string[];
  readonly isReadOnly: boolean;
  /** Write, read and remove a small file, when it comes online and in the thorough check. */
  readonly testsWriting: boolean;
  readonly mountMs: number;
  readonly checkMs: number;
  readonly unmountMs: number;
}

export function readMountSettings(settings: ResourceDefinition["settings"]): {
  readonly settings: MountSettings;
  readonly faults: readonly string[];
} {
  const reader = new SettingReader(settings);
  const device = reader.text("device");
  const directory = reader.path("directory");
  const type = reader.text("type", "auto");
  const options = reader.list("options").flatMap((each) => each.split(",").filter((option) => option !== ""));
  const testsWriting = reader.flag("testWrite", true);
  if (directory === "/" || directory.endsWith("/")) reader.fault("directory", "must not end with a slash");
  if (device.startsWith("-")) reader.fault("device", "must not begin with a hyphen");
  if (!/^[a-z0-9][a-z0-9._-]*$/.test(type)) reader.fault("type", `${type} is no type of a file system`);
  if (type === "bind" && !device.startsWith("/"))
    reader.fault("device", "must be an absolute path with the type bind");
  if (type === "bind" && device === directory)
    reader.fault("device", "and directory must not be the same with the type bind");
  for (const option of options) {
    if (!/^[^\s,]+$/.test(option)) reader.fault("options", `${option} is no option`);
    // The first two change other mounts than this one; the others are acts of their own.
    if (/^(remount|move|rbind|bind|make-.*|(r?(shared|private|slave|unbindable)))$/.test(option))
      reader.fault("options", `${option} is not for a resource`);
  }
  return {
    settings: {
      device,
      directory,
      type,
      options,
      isReadOnly: options.includes("ro"),
      testsWriting,
      mountMs: reader.count("mountMs", 60_000, 100, 3_600_000),
      checkMs: reader.count("checkMs", 10_000, 100, 600_000),
      unmountMs: reader.count("unmountMs", 20_000, 100, 3_600_000),
    },
    faults: reader.faults(),
  };
}

/** What is wrong with the settings of a `mount`; each begins with the name of the setting. */
export function checkMountSettings(settings: ResourceDefinition["settings"]): readonly string[] {
  return readMountSettings(settings).faults;
}
