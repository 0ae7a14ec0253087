import { type Coordination, checkDocument } from "@lockstep/cluster";
import type { LeaseRecord } from "@lockstep/core";
import { SimDocumentStore, SimRecordStore } from "@lockstep/testing";

/** The store of the simulation behind the port of the real ones, so that one suite can hold all of them to one contract. */
export function simulatedStore(): () => Coordination {
  const stores = new Map<string, SimRecordStore<LeaseRecord>>();
  const storeOf = (name: string) => {
    const store = stores.get(name) ?? new SimRecordStore<LeaseRecord>();
    stores.set(name, store);
    return store;
  };
  const documents = new SimDocumentStore();
  return () => ({
    documents: {
      read: async (key) => documents.read(key),
      list: async (prefix) => documents.list(prefix),
      write: async (key, expected, text) => {
        checkDocument(key, text);
        return documents.write(key, expected, text);
      },
      watch: (prefix, tell, signal) => {
        tell();
        return untilAborted(
          signal,
          documents.watch((key) => key.startsWith(prefix) && tell()),
        );
      },
    },
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
      return untilAborted(signal, stop);
    },
    writeGuarded: async (name, token, values) => storeOf(name).writeGuarded(token, values),
    readValues: async (name, prefix = "") =>
      new Map([...storeOf(name).values].filter(([key]) => key.startsWith(prefix))),
    readValueKeys: async (name, prefix) =>
      [...storeOf(name).values.keys()].filter((key) => key.startsWith(prefix)),
    close: async () => {},
  });
}

function untilAborted(signal: AbortSignal, stop: () => void): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      stop();
      resolve();
    };
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}
