import { readdirSync, readFileSync } from "node:fs";

/** `major:minor` of the loop devices that show an image file, by the kernel's list of them. `file`: links resolved. */
export function loopDevicesOf(file: string): string[] {
  return entries("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .filter((name) => read(`/sys/block/${name}/loop/backing_file`).replace(/\n$/, "") === file)
    .map((name) => read(`/sys/block/${name}/dev`).trim());
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
