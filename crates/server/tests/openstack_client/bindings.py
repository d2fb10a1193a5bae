"""A server's port bound as the SDK binds it, for which the `openstack` client has no commands."""

import openstack

cloud = openstack.connect()
network = cloud.network
assert network.find_extension("binding-extended")
inner = network.create_network(name="bound")
network.create_subnet(network_id=inner.id, ip_version=6, cidr="2001:db8:99::/64")
port = network.create_port(network_id=inner.id, device_owner="compute:nova", binding_host_id="h1")


def bindings(**query):
    return sorted((b.host, b.status) for b in network.port_bindings(port, **query))


made = network.create_port_binding(port, host="h2", vnic_type="normal", profile={"a": "b"})
assert (made.host, made.status, made.vif_type) == ("h2", "INACTIVE", "tap"), made
assert made.vif_details["port_filter"] and made.profile == {"a": "b"}, made
assert bindings() == [("h1", "ACTIVE"), ("h2", "INACTIVE")], bindings()
try:
    network.create_port_binding(port, host="h2")
    raise AssertionError("a second one for the same host")
except openstack.exceptions.ConflictException as e:
    assert "already exists" in str(e), e
assert network.activate_port_binding(port, "h2").host == "h2"
assert bindings() == [("h1", "INACTIVE"), ("h2", "ACTIVE")], bindings()
assert network.get_port(port.id).binding_host_id == "h2"
network.delete_port_binding(port, "h1", ignore_missing=False)
assert bindings(host="h1") == [], bindings()
try:
    network.delete_port_binding(port, "h1", ignore_missing=False)
    raise AssertionError("it is gone")
except openstack.exceptions.NotFoundException:
    pass
network.delete_port(port)
network.delete_network(inner)
