import type { ConfigValues } from "./parameters.ts";
import { isRecord } from "./record.ts";
import type { ValueFault } from "./values.ts";

/**
 * What single values cannot tell: whether they fit together. The validity check of the original is kept: no job
 * provider and no log writer are errors (the reader says so), no destination is a warning; that there are no plug-ins
 * is only noted, since every component that most people need is built in.
 */
export function checkAcross(values: ConfigValues, document: unknown): ValueFault[] {
  const root = isRecord(document) ? document : {};
  return [
    ...checkDestinations(values),
    ...checkAuthentication(values, isRecord(root.HTTPAuthentication)),
    ...(values.HTTPStatus.Enabled
      ? []
      : [
          warning(
            ["HTTPStatus", "Enabled"],
            "is false: nobody can see how the service does, and `service status` cannot ask",
          ),
        ]),
    ...((values.Service.Plugins ?? []).length > 0
      ? []
      : [
          {
            severity: "note",
            at: ["Service"],
            problem: "no plug-ins: the built-in components alone are known",
          } as const,
        ]),
  ];
}

const warning = (at: ValueFault["at"], problem: string): ValueFault => ({ severity: "warning", at, problem });
const error = (at: ValueFault["at"], problem: string): ValueFault => ({ severity: "error", at, problem });

function checkDestinations({ JobServiceDestination: destinations }: ConfigValues): ValueFault[] {
  if (destinations.length === 0)
    return [
      warning(
        ["JobServiceDestination"],
        "there is no [[JobServiceDestination]]: the service will get no steps",
      ),
    ];
  const first = new Map<string, number>();
  return destinations.flatMap((destination, index) => {
    const faults: ValueFault[] = [];
    const at = ["JobServiceDestination", index] as const;
    // Two queues that differ in case only are two queues for the hub, and one mistake for people.
    const key = destination.Queue.toLowerCase();
    const before = first.get(key);
    if (key !== "" && before !== undefined)
      faults.push(
        error(
          [...at, "Queue"],
          `is the queue of JobServiceDestination[${before + 1}] too; each may be served once`,
        ),
      );
    else first.set(key, index);
    if (destination.InternalSlots + destination.ExternalSlots === 0)
      faults.push(warning([...at], "has no slots at all: it will get no steps"));
    return faults;
  });
}

function checkAuthentication(values: ConfigValues, given: boolean): ValueFault[] {
  const { PasswordFile, PasswordEnvironment } = values.HTTPAuthentication;
  const at = ["HTTPAuthentication"] as const;
  if (PasswordFile !== null && PasswordEnvironment !== null)
    return [
      error([...at, "PasswordEnvironment"], "is given beside PasswordFile; only one of them can count"),
    ];
  if (given && PasswordFile === null && PasswordEnvironment === null)
    return [error([...at], "names neither PasswordFile nor PasswordEnvironment")];
  return [];
}
