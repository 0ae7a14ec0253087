/** Whether a machine has what a node of a cluster needs: for the commands, and for each daemon from time to time. */
export { readClusterKey } from "../node/cluster-key.ts";
export { keyDigest, makeClusterKey } from "./cluster-key.ts";
export { type ExaminationSubject, examineNode } from "./examine-node.ts";
export { type CommitTimes, judgeCommits, measureCommits } from "./store.ts";
export { listStoreMembers, type StoreMember, votesOf } from "./store-members.ts";
