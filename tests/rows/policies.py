"""The policies that the rows are judged by, whole files of them."""

from __future__ import annotations

__all__ = ["POLICIES"]


def _policy(
    rules: str,
    *,
    default: str = "pass",
    malformed: str = "drop",
    fragments: str = "rules",
    guard: bool = False,
    sets: str = "",
    right: bool = False,
    targets: tuple[str, ...] = (),
) -> str:
    ports = '\n[ports.left]\nmode = "auto"\n'
    if right:
        ports += '\n[ports.right]\nmode = "auto"\n'
    return (
        "[policy]\n"
        f'default   = "{default}"\n'
        f'malformed = "{malformed}"\n'
        f'fragments = "{fragments}"\n'
        f"guard     = {str(guard).lower()}\n"
        f'rules = """\n{rules.strip()}\n"""\n'
        f"{ports}"
        + (f"\n[sets]\n{sets.strip()}\n" if sets else "")
        + "".join(f'\n[af_xdp.{name}]\nhandler = "count"\n' for name in targets)
    )


POLICIES: dict[str, str] = {
    # Guard is on here with default pass, where it must never be the reason.
    "ethernet": _policy(
        """
e_arp    drop  arp
e_lldp   drop  ether type 0x88cc len 1000-1100
e_slow   tx    ether type 0x8809 ether to 01:80:c2:00:00:02
e_test   tx    ether type 0x88b5
e_from   drop  ether from 02:00:00:00:00:bd
e_to     drop  ether to 02:00:00:00:00:be
e_pair   tx    ether from 02:00:00:00:00:c1 ether to 02:00:00:00:00:c2
e_six    tx    ether type 0x86dd to 2001:db8::eeee
""",
        guard=True,
    ),
    "vlan": _policy(
        """
v_arp    drop  vlan 10 arp
v_test   tx    vlan any ether type 0x88b5
v_ten    drop  vlan 10
v_top    tx    vlan 4094
v_none   drop  vlan none tcp to port 80
v_any    drop  vlan any udp to port 53
""",
    ),
    "protocols": _policy(
        """
a_tcp    pass  tcp
a_udp    pass  udp
a_icmp   pass  icmp
a_icmp6  pass  icmp6
a_sctp   pass  sctp
a_gre    pass  gre
a_esp    pass  esp
a_ah     pass  ah
a_253    tx    proto 253
a_59     pass  proto 59
a_43     pass  proto 43
a_0      pass  proto 0
""",
        default="drop",
    ),
    # What is well-formed meets pass or tx, what is not meets drop.
    "parse": _policy(
        """
web      pass  tcp to port 80
dns      pass  udp to port 53
sig      pass  sctp to port 5060
ping     pass  icmp type 8
ping6    pass  icmp6 type 128
all4     tx    ip
all6     tx    ip6
""",
        default="drop",
    ),
    "malformed_pass": _policy(
        """
all4     drop  ip
all6     drop  ip6
tagged   drop  vlan any
""",
        default="drop",
        malformed="pass",
        fragments="drop",
        guard=True,
    ),
    "fragments": _policy(
        """
f_web    drop  tcp to port 80
f_dns    drop  udp to port 53
f_src    drop  from 203.0.113.66
f_first  tx    frag first udp
f_later  tx    frag later tcp
f_gre    drop  gre frag any
f_sctp   drop  sctp frag no
f_ah     tx    ah
f_hop    tx    proto 0
f_frag   tx    proto 44
f_ping   drop  icmp type 8
""",
    ),
    "fragments_drop": _policy(
        """
web      pass  tcp to port 80
all4     tx    ip
all6     tx    ip6
""",
        fragments="drop",
    ),
    # A field that a packet does not have is not a field of value 0.
    "zeros": _policy(
        """
z_proto  tx    proto 0
z_sport  tx    from port 0
z_dport  tx    to port 0
z_type   tx    type 0
z_src4   tx    from 0.0.0.0
z_src6   tx    from ::
z_flags  tx    flags !fin,!syn,!rst,!psh,!ack,!urg,!ece,!cwr
z_ttl    tx    ttl 0
z_dscp   tx    dscp 0
z_frag   drop  frag no ttl 0-32
z_not    drop  from not 10.0.0.0/8
""",
    ),
    "fields": _policy(
        """
l_low    tx    len 100-200
l_edge   drop  len 1500-1518
l_jumbo  tx    len 9000-9014
l_ip     drop  ip len 300
t_low    drop  ttl 1-5
t_max    tx    ttl 255
d_ef     drop  dscp 46
d_top    tx    dscp 63
""",
    ),
    "l4": _policy(
        """
f_all     drop  flags fin,syn,rst,psh,ack,urg,ece,cwr
f_null    drop  flags !fin,!syn,!rst,!psh,!ack,!urg,!ece,!cwr
f_synfin  drop  flags syn,fin
f_open    tx    flags syn,!ack
f_rst     drop  flags rst
f_urg     drop  flags urg
f_ece     drop  flags ece,!cwr
f_cwr     tx    flags cwr
f_psh     drop  flags psh,!ack
f_fin     drop  flags fin,!ack
f_ack     tx    flags ack to port 8080
t_ping    drop  icmp type 8
t_df      drop  icmp type 3 code 4
t_ping6   drop  icmp6 type 128
t_big     drop  icmp6 type 2
t_adm     drop  icmp6 type 1 code 1
t_any     tx    type 13
t_end     tx    type 255 code 255
""",
    ),
    "addresses": _policy(
        """
h4       drop  from 192.0.2.32
p32      tx    to 192.0.2.100/32
p31      drop  from 192.0.2.64/31
p25      drop  from 192.0.2.128/25
p10      tx    from 100.64.0.0/10
r4       drop  from 10.9.0.250-10.9.1.5
h6       drop  from 2001:db8:0:1::1/128
p127     drop  from 2001:db8:0:2::2/127
p64      tx    to 2001:db8:0:3::/64
p33      drop  to 2001:db8:8000::/33
r6       drop  from 2001:db8:0:9::10-2001:db8:0:9::20
p1       tx    to 128.0.0.0/1 from 203.0.113.1
p1six    tx    to 8000::/1 from 2001:db8:0:7::1
any4     drop  udp from 0.0.0.0/0 to port 7
any6     tx    udp from ::/0 to port 7
s_from   drop  from @bad
s_to     tx    to @bad
s_web    drop  tcp to port @web
s_list   drop  from { 198.51.100.10, 198.51.100.64/26, 2001:db8:c::/64 }
s_ports  tx    udp to port { 53, 123, 5000-5010 }
s_all    drop  sctp from @friends port @web to 10.2.0.0/16 port 5060
""",
        sets="""
bad     = ["198.18.0.0/15", "2001:db8:bad::/48", "203.0.113.7"]
friends = ["10.1.0.0/24", "2001:db8:a::/48"]
web     = [80, 443, "8000-8100"]
""",
    ),
    "negation": _policy(
        """
n_from   drop  udp from not 10.0.0.0/8 to port 1001
n_set    drop  udp from not @home to port 1002
n_to     drop  udp from port 1003 to not 10.0.0.0/8
n_six    drop  udp from not 2001:db8::/32 to port 1004
n_range  drop  udp from 10.1.0.7 to port not 2000-2999
n_ports  tx    tcp to 10.2.0.8 port not @open
n_any    tx    to 10.2.0.9 port not 22
n_both   drop  tcp from not 10.1.0.0/16 port not 1024-65535
n_list   drop  sctp from not { 10.1.0.1, 2001:db8:a::1 } to port 1006
n_ip     drop  from not 0.0.0.0/0 to 2001:db8:b::6
""",
        sets="""
home = ["10.0.0.0/8", "2001:db8::/32"]
open = [80, 443, "8000-8100"]
""",
    ),
    "order": _policy(
        """
o_first  pass  tcp from 10.1.0.0/16 to port 22
o_deny   drop  tcp to port 22
o_left   tx    on left udp to port 500
o_right  pass  on right udp to port 500
o_arp    tx    on right arp
o_low    pass  udp to port 0-1023
o_top    tx    to port 65535
o_src    tx    from port 5353
o_pair   pass  udp from port 4000 to port 4001
o_and    pass  tcp from 10.1.0.0/16 port 1024-65535 to 10.2.0.0/16 port 8443 \
flags syn,!ack ttl 64 dscp 0 vlan none len 54-100 frag no
o_both   pass  udp to port 4500
o_four   pass  ip sctp
o_six    tx    ip6 gre
""",
        default="drop",
        right=True,
    ),
    "guard": _policy("g_web    pass  tcp to port 80", default="drop", guard=True),
    "guard_off": _policy("g_web    pass  tcp to port 80", default="drop"),
    "guard_rules": _policy(
        """
r_arp    drop  arp
r_lldp   tx    ether type 0x88cc
r_ns     drop  icmp6 type 135
r_dhcp   drop  udp from port 67
r_lan    drop  vlan any
""",
        default="drop",
        guard=True,
    ),
    "targets": _policy(
        """
t_keep   pass  udp from 10.1.0.99 to port 4789
t_over   af_xdp overlay else pass  udp to port 4789
t_echo   af_xdp echo else drop     udp to port 7
t_right  af_xdp echo else pass     on right tcp
t_syn    af_xdp overlay else drop  tcp flags syn,!ack
t_arp    af_xdp echo else pass     vlan 10 arp
t_later  af_xdp overlay else drop  frag later
""",
        default="drop",
        right=True,
        targets=("overlay", "echo"),
    ),
}
