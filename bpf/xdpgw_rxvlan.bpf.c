// SPDX-License-Identifier: GPL-2.0-only
/*
 * xdpgw_rxvlan.bpf.c - the datapath for a native port whose driver takes VLAN tags out of frames.
 *
 * An object of its own, as the function that tells such a tag needs the kernel's BTF and ties a program to its
 * device. Control uses it where the policy looks at VLANs and the kernel takes it, and the plain one elsewhere.
 */
#define XG_RX_VLAN

#include "xdpgw.bpf.c"
