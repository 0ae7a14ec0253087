import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { checkIpAddressSettings, isSameNetwork, readIpAddressSettings } from "./ip-address-settings.ts";

suite("settings of an ip-address", () => {
  test("an address with its network is enough, and is written as the kernel writes it", () => {
    const { settings, faults } = readIpAddressSettings({ address: "FD77:0::0050/64" });
    assert.deepEqual(faults, []);
    assert.equal(settings.address, "fd77::50");
    assert.equal(settings.prefixLength, 64);
    assert.equal(settings.interfaceName, null);
    assert.deepEqual(checkIpAddressSettings({ address: "10.0.0.50/24" }), []);
  });

  test("peers are read with and without a port", () => {
    const { settings, faults } = readIpAddressSettings({
      address: "10.0.0.50/24",
      peers: ["10.0.0.1", "10.0.9.1:443"],
    });
    assert.deepEqual(faults, []);
    assert.deepEqual(settings.peers, [
      { host: "10.0.0.1", port: null },
      { host: "10.0.9.1", port: 443 },
    ]);
    assert.deepEqual(
      readIpAddressSettings({ address: "fd00::5/64", peers: "[fd00::1]:443" }).settings.peers,
      [{ host: "fd00::1", port: 443 }],
    );
  });

  test("every fault is told at once", () => {
    const faults = checkIpAddressSettings({
      address: "10.0.0.50",
      interface: "-eth0",
      peers: ["gateway"],
      lifetimeSeconds: 1,
      foreignOwner: "shoot",
      announcements: 3,
    });
    assert.deepEqual(
      faults.map((fault) => fault.split(":")[0]),
      ["address", "interface", "peers", "foreignOwner", "lifetimeSeconds", "announcements"],
    );
  });

  for (const address of [
    "10.0.0.256/24",
    "10.0.0.50/33",
    "10.0.0.50/0",
    "10.0.0.50/24/1",
    "127.0.0.1/8",
    "224.0.0.5/4",
    "0.0.0.0/8",
    "::1/128",
    "::/64",
    "fe80::1/64",
    "ff02::1/64",
    "fe80::1%eth0/64",
    "10.0.0.50/24; rm",
  ])
    test(`${address} is refused`, () => assert.equal(checkIpAddressSettings({ address }).length, 1));

  test("a peer of the other protocol, and a neighbour without a port in IPv6, are refused", () => {
    assert.equal(checkIpAddressSettings({ address: "10.0.0.50/24", peers: ["[fd00::1]:443"] }).length, 1);
    assert.equal(checkIpAddressSettings({ address: "fd00::5/64", peers: ["fd00::1"] }).length, 1);
  });

  test("networks are compared bit by bit", () => {
    assert.ok(isSameNetwork("10.0.1.5", "10.0.0.9", 23));
    assert.ok(!isSameNetwork("10.0.1.5", "10.0.0.9", 24));
    assert.ok(isSameNetwork("fd77::50", "fd77::1", 64));
    assert.ok(!isSameNetwork("fd77::50", "10.0.0.1", 64));
  });
});
