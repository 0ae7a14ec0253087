#!/bin/bash
# The first process of a node below Pacemaker, in namespaces of its own: NAME DIRECTORY.
# DIRECTORY holds corosync.conf, cib.xml, the agent, and for each node a directory that stands at /mnt/app there.
set -e
name=$1
hostname "$name"
# Found there whatever is mounted over below.
mount --bind "$2" /mnt
directory=/mnt
# Of a former boot.
rm -rf "$directory/agents-$name"
cp -a /usr/lib/ocf/resource.d "$directory/agents-$name"
mkdir "$directory/agents-$name/lockstep"
cp "$directory/lockstep-service" "$directory/agents-$name/lockstep/"
mount --bind "$directory/agents-$name" /usr/lib/ocf/resource.d
mount --bind "$directory/app-$name" "$directory/app"
for each in /run /var/lib/corosync /var/lib/pacemaker /var/log /dev/shm /etc/corosync; do
	mount -t tmpfs tmpfs "$each"
done
cp "$directory/corosync.conf" /etc/corosync/
mkdir -p /run/crm /run/resource-agents /var/log/pacemaker /var/lib/pacemaker/{blackbox,cib,cores,pengine}
cp "$directory/cib.xml" /var/lib/pacemaker/cib/
chmod 600 /var/lib/pacemaker/cib/cib.xml
chown -R hacluster:haclient /run/crm /var/log/pacemaker /var/lib/pacemaker
corosync -f >"$directory/corosync-$name.log" 2>&1 &
until corosync-cpgtool >/dev/null 2>&1; do sleep 0.1; done
# The first process collects whatever its services leave behind.
pacemakerd -f >"$directory/pacemaker-$name.log" 2>&1 &
while :; do wait -n || sleep 1; done
