import { existsSync, lstatSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/**
 * A process that swaps files as fast as it can, as the user that it was started as: `racer.ts flip FILE GOOD EVIL` writes
 * one content after the other into a file; `racer.ts swap DIRECTORY EVIL` puts its own file, or a link to it, in place of
 * every file that it reaches below a directory. Until `stop` stands in its own directory; then it says how often. Once it
 * has tried often it says so, too.
 */
const [task, target = "", ...words] = process.argv.slice(2);
const own = process.cwd();
let tried = 0;
let done = 0;
const OFTEN = 1000;
let hasSaidOften = false;

function attempt(act: () => void): void {
  tried++;
  try {
    act();
    done++;
  } catch {
    // It was not allowed to, or came too late.
  }
}

function swapBelow(directory: string, evil: string): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    tried++;
    return;
  }
  for (const name of names) {
    const path = join(directory, name);
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) {
      swapBelow(path, evil);
      continue;
    }
    if (!/^(\d+|program|[0-9a-f]{64})$/.test(name)) continue;
    attempt(() => {
      const mine = join(directory, `mine-${process.pid}`);
      writeFileSync(mine, evil);
      renameSync(mine, path);
    });
    attempt(() => {
      const link = join(directory, `link-${process.pid}`);
      rmSync(link, { force: true });
      symlinkSync(join(own, "evil"), link);
      renameSync(link, path);
    });
  }
}

process.stdout.write("ready\n");
for (let turn = 0; turn % 16 !== 0 || !existsSync(join(own, "stop")); turn++) {
  if (task === "flip") attempt(() => writeFileSync(target, words[turn % 2] ?? "", { flag: "r+" }));
  else swapBelow(target, words[0] ?? "");
  if (!hasSaidOften && (task === "flip" ? done : tried) > OFTEN) {
    hasSaidOften = true;
    process.stdout.write("often\n");
  }
}
process.stdout.write(`${JSON.stringify({ tried, done })}\n`);
