import type { ServiceProgram } from "./systemd-unit.ts";

/**
 * The same for Windows and macOS, as text to be read and carried out by a person. UNTESTED: nobody has run these on such
 * a machine. They are here so that whoever has one need not start from nothing, and both say so themselves.
 */
const WARNING = "UNTESTED: written after the documentation of the system, never run on one.";

/**
 * Commands for Windows. The service control manager wants a program that answers it within 30 seconds, which node.exe
 * does not; so a wrapper stands between (srvany of the Resource Kit, or one that reads the same registry keys).
 */
export function formatWindowsCommands({
  name,
  command,
  configFile,
  directory,
  user,
}: ServiceProgram): string {
  const [program = "", ...rest] = command;
  const words = [...rest, "service", "run", "--config", configFile].map(quoteWindows).join(" ");
  const key = `HKLM\\SYSTEM\\CurrentControlSet\\Services\\${name}`;
  return [
    `rem ${WARNING}`,
    "rem Run as administrator. WRAPPER is the full path of srvany.exe.",
    `sc.exe create ${name} binPath= "%WRAPPER%" start= delayed-auto obj= "${user}" DisplayName= "Lockstep job service ${name}"`,
    `reg.exe add "${key}\\Parameters" /v Application /t REG_SZ /d "${program}" /f`,
    `reg.exe add "${key}\\Parameters" /v AppParameters /t REG_SZ /d "${words.replaceAll('"', '\\"')}" /f`,
    `reg.exe add "${key}\\Parameters" /v AppDirectory /t REG_SZ /d "${directory}" /f`,
    `sc.exe failure ${name} reset= 86400 actions= restart/2000/restart/10000/restart/60000`,
    `sc.exe failureflag ${name} 1`,
    `sc.exe sidtype ${name} unrestricted`,
    `icacls.exe "${directory}" /grant "NT SERVICE\\${name}:(OI)(CI)M"`,
    `sc.exe start ${name}`,
    "",
    "rem To remove it:",
    `rem sc.exe stop ${name}`,
    `rem sc.exe delete ${name}`,
    "",
  ].join("\r\n");
}

/** A property list for launchd (launchd.plist(5)). */
export function formatLaunchdPlist({
  name,
  command,
  configFile,
  directory,
  user,
  drainMs,
}: ServiceProgram): string {
  const label = `lockstep.${name}`;
  const words = [...command, "service", "run", "--config", configFile];
  return `<?xml version="1.0" encoding="UTF-8"?>
<!-- ${WARNING}
     Put it into /Library/LaunchDaemons/${escapeComment(label)}.plist (owner root, mode 0644), then:
     launchctl bootstrap system /Library/LaunchDaemons/${escapeComment(label)}.plist
     To remove it: launchctl bootout system/${escapeComment(label)} -->
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>${escapeXml(label)}</string>
  <key>ProgramArguments</key>
  <array>
${words.map((word) => `    <string>${escapeXml(word)}</string>`).join("\n")}
  </array>
  <key>WorkingDirectory</key><string>${escapeXml(directory)}</string>
  <key>UserName</key><string>${escapeXml(user)}</string>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><true/>
  <key>ExitTimeOut</key><integer>${Math.ceil(drainMs / 1000) + 30}</integer>
  <key>Umask</key><integer>23</integer>
  <key>StandardErrorPath</key><string>${escapeXml(`${directory}/service-errors.log`)}</string>
</dict>
</plist>
`;
}

/** By the rules of CommandLineToArgvW. */
function quoteWindows(word: string): string {
  if (/^[^\s"]+$/.test(word)) return word;
  return `"${word.replaceAll(/(\\*)"/g, '$1$1\\"').replace(/(\\+)$/, "$1$1")}"`;
}

const escapeXml = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
const escapeComment = (text: string) => escapeXml(text).replaceAll("--", "- -");
