import type { Coordination } from "@lockstep/cluster";
import type { LeaseRecord } from "@lockstep/core";
import { SimRecordStore } from "@lockstep/testing";

/** The store of the simulation behind the port of the real ones, so that one suite can hold all of them to one contract. */
export function simulatedStore(): () => Coordination {
  const stores = new Map<string, SimRecordStore<LeaseRecord>>();
  const storeOf = (name: string) => {
    const store = stores.get(name) ?? new SimRecordStore<LeaseRecord>();
    stores.set(name, store);
    return store;
  };
  return () => ({
    read: async (name) => {
      const { record, revision } = storeOf(name).read();
      return { record, revision };
    },
    swap: async (name, { expected, record, takes }) => {
      const answer = storeOf(name).swap(expected, record, takes ? record.token : null);
      if (answer.swapped) return { swapped: true, revision: answer.revision };
      return { swapped: false, observation: { record: answer.record, revision: answer.revision } };
    },
    watch: (name, tell, signal) => {
      const { record, revision } = storeOf(name).read();
      if (revision > 0) tell({ record, revision });
      const stop = storeOf(name).watch((record, revision) => tell({ record, revision }));
      return new Promise((resolve) => {
        const end = () => {
          stop();
          resolve();
        };
        if (signal.aborted) end();
        else signal.addEventListener("abort", end, { once: true });
      });
    },
    writeGuarded: async (name, token, values) => storeOf(name).writeGuarded(token, values),
    readValues: async (name) => storeOf(name).values,
    close: async () => {},
  });
}
