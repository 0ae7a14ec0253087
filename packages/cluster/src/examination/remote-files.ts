import type { NodeFinding, VirtualServerDefinition } from "@lockstep/core";
import { type MountEntry, mountOf, readMountTable } from "../resources/mount-table.ts";
import { warning } from "./finding.ts";

/** File systems that ask another machine, and wait for it when it is gone. */
const REMOTE =
  /^(nfs4?|cifs|smb3|smbfs|9p|afs|ceph|glusterfs|lustre|beegfs|fuse\.(sshfs|glusterfs|ceph|s3fs|rclone))$/;

/**
 * What the daemon itself reads of a virtual server, where it lies on another machine: were that gone in the middle of a
 * look, the daemon would wait, and every virtual server of this node with it. What a mount of the virtual server brings along is not meant.
 */
export function examineRemoteFiles(
  { name, config, checkpoints, resources }: VirtualServerDefinition,
  table: readonly MountEntry[] = process.platform === "linux" ? readMountTable() : [],
): NodeFinding[] {
  const own = resources.flatMap(({ type, settings: { directory } }) =>
    type === "mount" && typeof directory === "string" ? [directory.replace(/\/+$/, "")] : [],
  );
  const paths = [...(config === null ? [] : [config.path]), ...checkpoints];
  return paths.flatMap((path) => {
    const mount = mountOf(table, path);
    if (mount === null || !REMOTE.test(mount.type) || own.includes(mount.directory)) return [];
    return [
      warning(
        name,
        `${path} lies on ${mount.source} (${mount.type}), another machine`,
        "Were that gone in the middle of a look, this node would lose what it owns. Keep configuration and settings on a local disk: the cluster makes them equal.",
      ),
    ];
  });
}
