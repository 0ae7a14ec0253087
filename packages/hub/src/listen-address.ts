import { isLoopback, type ListenAddress } from "@lockstep/platform";
import { LockstepError } from "@lockstep/protocol";

export const DEFAULT_LISTEN = "127.0.0.1:8700";

/** Refuses to show anything to other machines in the clear or to whoever asks. Throws HUB_LISTEN_REFUSED. */
export function checkListen(
  { host }: ListenAddress,
  protection: { readonly token: boolean; readonly tls: boolean },
): void {
  if (isLoopback(host) || (protection.token && protection.tls)) return;
  throw new LockstepError("HUB_LISTEN_REFUSED", `the hub does not listen on ${host} without protection`, {
    expected: "a token, and a certificate with its key",
    found: [protection.token ? null : "no token (--dev)", protection.tls ? null : "no certificate"]
      .filter((lack) => lack !== null)
      .join(", "),
    hint: "Give --tls-cert and --tls-key and leave out --dev, or listen on 127.0.0.1.",
  });
}
