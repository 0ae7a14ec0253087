import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { OcfAgent } from "./ocf-agent.ts";
import { advisedMs, deepestMonitor, findParameterFaults, parseOcfMetadata } from "./ocf-metadata.ts";
import { checkOcfSettings, readOcfSettings } from "./ocf-settings.ts";

const XML = `<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="Thing" version="1.0">
<!-- <parameter name="commented"/> -->
<longdesc><![CDATA[ <parameter name="quoted"/> ]]></longdesc>
<parameters>
<parameter name="path" required="1"><longdesc>a > b</longdesc><content type="string"/></parameter>
<parameter name='port' unique="0"><content type="integer" default="80" /></parameter>
<parameter name="tls" required="0">
<content type="boolean" default="a &lt; &quot;b&quot;"/>
</parameter>
</parameters>
<actions>
<action name="start" timeout="2min" />
<action name="stop" timeout="45" />
<action name="monitor" depth="0" timeout="20s" interval="10s" />
<action name="monitor" depth="20" timeout="60s" interval="10s" />
<action name="meta-data" timeout="soon" />
</actions>
</resource-agent>`;

test("what an agent says of itself is read, comments and quoted text left out", () => {
  const metadata = parseOcfMetadata(XML);
  assert.ok(metadata !== null);
  assert.deepEqual([...metadata.parameters.keys()], ["path", "port", "tls"]);
  assert.deepEqual(metadata.parameters.get("path"), { isRequired: true, type: "string", default: null });
  assert.equal(metadata.parameters.get("tls")?.default, 'a < "b"');
  assert.deepEqual(
    ["start", "stop", "meta-data", "monitor"].map((name) => advisedMs(metadata, name)),
    [120_000, 45_000, null, 20_000],
  );
  assert.equal(advisedMs(metadata, "monitor", 20), 60_000);
  assert.equal(advisedMs(metadata, "monitor", 10), 20_000);
  assert.equal(deepestMonitor(metadata), 20);
  assert.equal(parseOcfMetadata("<html><body>not found</body></html>"), null);
});

test("any text for a description ends in a description or none, soon", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom("<", ">", '"', "parameter", " name=", "!--", "a", "&", "/")),
      (parts) => {
        parseOcfMetadata(`<resource-agent>${parts.join("")}`);
      },
    ),
  );
});

test("parameters are held against the description, all faults at once", () => {
  const metadata = parseOcfMetadata(XML);
  assert.ok(metadata !== null);
  assert.deepEqual(findParameterFaults(metadata, new Map([["path", "/x"]])), []);
  const faults = findParameterFaults(
    metadata,
    new Map([
      ["port", "eighty"],
      ["tls", "perhaps"],
      ["prot", "x"],
    ]),
  );
  assert.equal(faults.length, 4);
  for (const pattern of [/path is missing/, /port must be a whole/, /tls must be true/, /has no prot/])
    assert.ok(
      faults.some((fault) => pattern.test(fault)),
      String(pattern),
    );
});

test("settings: an agent by its name, parameters as name and value, nothing that leads out of the agents", () => {
  const good = { agent: "ocf:heartbeat:Dummy", parameters: ["fake=a=b", "state=/run/x y"], checkLevel: 10 };
  assert.deepEqual(checkOcfSettings(good), []);
  assert.equal(readOcfSettings(good).settings.parameters.get("fake"), "a=b");
  assert.equal(readOcfSettings({ agent: good.agent }).settings.checkLevel, null);
  for (const agent of ["Dummy", "ocf:heartbeat:../../x", "ocf:..:Dummy", "ocf:a:b:c", ""])
    assert.match(checkOcfSettings({ agent }).join(), /^agent/, agent);
  assert.match(
    checkOcfSettings({ agent: good.agent, parameters: ["a", "b=1", "b=2"] }).join(),
    /a does not.*twice/,
  );
});

test("an agent sees its own surroundings and nothing of the daemon's", () => {
  const { settings } = readOcfSettings({ agent: "ocf:heartbeat:Dummy", parameters: ["fake=1"] });
  const agent = new OcfAgent(settings, "vs1-thing");
  const environment = agent.environment(7_000, 10);
  assert.equal(environment.OCF_RESKEY_fake, "1");
  assert.equal(environment.OCF_RESKEY_CRM_meta_timeout, "7000");
  assert.equal(environment.OCF_CHECK_LEVEL, "10");
  assert.equal(environment.OCF_RESOURCE_INSTANCE, "vs1-thing");
  assert.equal(environment.HOME, undefined);
  assert.equal(agent.path, "/usr/lib/ocf/resource.d/heartbeat/Dummy");
});
