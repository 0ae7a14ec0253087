import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { LockstepError } from "@lockstep/protocol";

/** The user that PostgreSQL runs as, where that is not our own. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** Of these the first that exists. None is created: an account is the administrator's to give. */
const NAMES = ["lockstep", "postgres", "nobody"] as const;

/**
 * Who PostgreSQL runs as. It refuses root, so a hub of root's runs it as an unprivileged user: the one that owns the
 * cluster already, else the first of NAMES. Null: as ourselves. Throws DATABASE_START_FAILED when there is no such user.
 */
export async function serverAccount(clusterOwner: Account | null): Promise<Account | null> {
  if (process.getuid?.() !== 0) return null;
  if (clusterOwner !== null && clusterOwner.uid !== 0) return clusterOwner;
  for (const name of NAMES) {
    const account = await lookUp(name);
    if (account !== null && account.uid !== 0) return account;
  }
  throw new LockstepError(
    "DATABASE_START_FAILED",
    "PostgreSQL does not run as root, and no other user was found",
    {
      expected: `a user ${NAMES.join(", ")}`,
      hint: "create one with: useradd --system lockstep; or run the hub as an ordinary user",
    },
  );
}

/** Asks the system, so that users of a directory service count as well as those of /etc/passwd. */
async function lookUp(name: string): Promise<Account | null> {
  const id = async (flag: "-u" | "-g") => {
    const { stdout } = await promisify(execFile)("id", [flag, name]);
    return Number(stdout.trim());
  };
  try {
    return { uid: await id("-u"), gid: await id("-g") };
  } catch {
    return null;
  }
}
