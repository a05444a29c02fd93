package runtime

import "github.com/tare-oci/tare/test/internal/ocitest"

// deviation is a line of the table below.
type deviation struct {
	peer, test string
	ocitest.Deviation
}

func does(peer, test, what string) deviation {
	return deviation{peer, test, ocitest.Deviation{Does: what}}
}

func skip(peer, test, why string) deviation {
	return deviation{peer, test, ocitest.Deviation{Does: why, Skip: true}}
}

// knownPeerDeviations is what other runtimes (as Debian 12 packages them: runc 1.1.5) do instead of what a case
// wants, and what tare itself refuses for now, with an error that names it. A case named here must fail with that runtime: so the
// table shows that the case can fail, and that in all other cases the suite and the peer agree.
var knownPeerDeviations = deviations(
	skip("runc", "TestAdvisoryRaces/CVE-2024-45310_making_destinations_while_they_are_swapped", "vulnerable (before 1.1.14): loses some of the races"),
	does("runc", "TestRecursiveOptions/MO_recursive_rro_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rnosuid_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rnodev_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rnoexec_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rnoatime_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rnodiratime_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rstrictatime_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/MO_recursive_rnosymfollow_on_a_file_system", "ignored"),
	does("runc", "TestRecursiveOptions/M16_flags_of_the_source_stay_in_a_user_namespace", "operation not permitted (before 1.2)"),
	skip("runc", "TestConcurrency/one_start_wins", "starts that lose wait for ever"),
	does("runc", "TestAdvisoryLinks/CVE-2026-41579_dev_is_a_link", "vulnerable: makes links and devices on the host"),
	does("runc", "TestAdvisoryLinks/CVE-2026-88265_streams_are_not_reopened_on_a_link", "vulnerable: reopens streams on the host file"),
	does("runc", "TestAdvisoryLinks/CVE-2019-16884_CVE-2015-3631_mounts_over_proc", "accepts mounts over /proc/self/attr and /proc/sys"),
	does("runc", "TestRootless/U4_ranges_of_newuidmap", "refuses additional groups although setgroups is allowed"),
	does("runc", "TestFeatures/F_the_features_document", "defaults is listed and refused"),
	does("runc", "TestHooks/HK_order,_state,_namespaces", "1.1.5 runs poststart at create"),
	does("runc", "TestHooks/HK9_run_ends_with_poststop", "1.1.5 runs poststart at create"),
	does("runc", "TestHooks/HK1_poststart_sees_the_program", "1.1.5 runs poststart at create"),
	does("runc", "TestHookErrors/HK2_negative_timeout_of_a_hook_that_would_never_run", "accepted"),
	does("runc", "TestHookErrors/HK3_relative_path", "accepted"),
	does("runc", "TestHookErrors/HK3_no_path", "accepted"),
	does("runc", "TestHookFailures/step_7-9_failing_startContainer", "status 0, the container is left stopped"),
	does("runc", "TestHookFailures/step_7-9_failing_poststart", "1.1.5 runs poststart at create"),
	does("runc", "TestHookFailures/step_13_failing_poststop", "stops at the first failure"),
	does("runc", "TestSignals/signals_of_run", "what the caller ignores and blocks stays so"),
	does("runc", "TestSignals/signals_of_run_in_a_user_namespace_with_a_joined_one", "what the caller ignores and blocks stays so"),
	does("runc", "TestSignals/signals_of_create_and_start", "what the caller ignores and blocks stays so"),
	does("runc", "TestSignals/signals_of_exec", "what the caller ignores and blocks stays so"),
	does("runc", "TestSignals/signals_of_hooks", "what the caller ignores and blocks stays so"),
	does("runc", "TestNoCapabilities/P21_unset_warns", "no warning"),
	does("runc", "TestNoCapabilities/P21_unset_warns_once", "no warning"),
	does("runc", "TestExecConfinement/X_silent_process_is_confined_as_the_container", "the caller's limits, 0022, and may gain privileges"),
	does("runc", "TestExecConfinement/X_cap_alone", "crashes"),
	does("runc", "TestExecConfinement/X_process_says_its_own_confinement", "the container's oom score, and may gain privileges"),
	does("runc", "TestExec/X_affinity_final", "property newer than 1.1.5: ignored"),
	does("runc", "TestExec/X_umask_is_the_container's", "0022"),
	does("runc", "TestExec/X_bad_users", "4294967296 and +0 are user 0"),
	does("runc", "TestRunDescriptors/P16_preserved_descriptors_that_are_not_open", "finds descriptors of its own"),
	does("runc", "TestLifecycle/step_8_execve_that_fails_is_an_error_of_start", "status 0, the error is only on the container's standard error"),
	does("runc", "TestLifecycle/P1_create_without_a_process", "refused"),
	does("runc", "TestKillDelete/kill_with_real-time_signals", "refused"),
	does("runc", "TestLimits/C13_burst", "property newer than 1.1.5: ignored"),
	does("runc", "TestLimits/C16_idle", "property newer than 1.1.5: ignored"),
	does("runc", "TestCgroupErrors/C6_swap_below_the_limit", "the kernel refuses, the error does not name the property"),
	does("runc", "TestCgroupErrors/C18_weight_device_without_a_weight", "accepted"),
	does("runc", "TestCgroupPlace/C2_a_cgroup_with_processes_is_refused", "warns only"),
	does("runc", "TestSeccomp/S1_no_default_action", "taken as none"),
	does("runc", "TestSeccomp/S2_errno_with_allow", "accepted"),
	does("runc", "TestSeccomp/S2_errno_with_kill", "accepted"),
	does("runc", "TestSeccomp/S2_default_errno_with_allow", "accepted"),
	does("runc", "TestSeccomp/S3_all_little-endian_ones", "newer than 1.1.5: refused"),
	does("runc", "TestSeccomp/S4_flags", "newer than 1.1.5: refused"),
	does("runc", "TestSeccomp/S4_speculation_is_left_alone", "newer than 1.1.5: refused"),
	does("runc", "TestSeccomp/S4_unknown_flag", "newer than 1.1.5: refused"),
	does("runc", "TestSeccomp/S5_no_names", "accepted"),
	does("runc", "TestSeccomp/S10_metadata_alone", "accepted"),
	does("runc", "TestDevices/D4_no_major", "0 is taken"),
	does("runc", "TestDevices/D4_relative_path", "accepted"),
	does("runc", "TestDevices/D5_another_file_is_there", "the file is kept"),
	does("runc", "TestDevices/D6_owner_in_a_user_namespace", "the host node is bound, mode and owner are lost"),
	does("runc", "TestDevices/C5_unknown_access", "accepted"),
	does("runc", "TestNetDevices/ND1_move_and_rename", "property newer than 1.1.5: ignored"),
	does("runc", "TestNetDevices/ND2_addresses", "property newer than 1.1.5: ignored"),
	does("runc", "TestNetDevices/ND5_name_template", "the file is kept"),
	does("runc", "TestNetDevices/ND6_no_network_namespace", "the host node is bound, mode and owner are lost"),
	does("runc", "TestNetDevices/ND6_missing_device", "the host node is bound, mode and owner are lost"),
	does("runc", "TestNetDevices/ND8_long_name", "property newer than 1.1.5: ignored"),
	does("runc", "TestNetDevices/ND8_bad_name", "property newer than 1.1.5: ignored"),
	does("runc", "TestNetDevices/ND4_name_that_is_taken", "property newer than 1.1.5: ignored"),
	does("runc", "TestNamespaces/U2_maps_without_the_namespace", "ignored"),
	does("runc", "TestNamespaces/T1_boot_time", "time namespaces are newer than 1.1.5"),
	does("runc", "TestNamespaces/T1_monotonic", "time namespaces are newer than 1.1.5"),
	does("runc", "TestNamespaces/T1_unknown_clock", "time namespaces are newer than 1.1.5"),
	does("runc", "TestNamespaces/T1_without_the_namespace", "time namespaces are newer than 1.1.5"),
	does("runc", "TestNamespaceJoin/N3_join_user_and_network", "refused without mappings (before 1.2)"),
	skip("runc", "TestNamespaceJoin/N_linux_absent_runs_or_is_refused,_without_a_trace", "mounts on the host"),
	does("runc", "TestProcess/P20_duplicate_type", "last one wins"),
	does("runc", "TestProcess/P25_batch", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P25_idle", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P25_deadline", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P25_unknown_policy", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P25_unknown_flag", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P25_priority_without_a_policy_that_has_one", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P28_io_priority", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P28_idle", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P28_priority_8", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P28_unknown_class", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/P29_bad_affinity", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/H2_domain_name", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/H3_domain_name_without_a_uts_namespace", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/PE1_personality", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/PE1_unknown_domain", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/PE1_flags", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_memory_policy", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_static_nodes", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_bind_without_nodes", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_default_with_nodes", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_unknown_mode", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_unknown_flag", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/MP1_node_that_is_not_there", "property newer than 1.1.5: ignored"),
	does("runc", "TestProcess/IR1_resctrl_is_not_there", "ignored"),
	does("runc", "TestConfig/G2_duplicate_name", "last one wins"),
	does("runc", "TestConfig/G2_duplicate_name_inside", "last one wins"),
	does("runc", "TestConfig/G4_malformed_JSON", "the error does not say which file"),
	does("runc", "TestConfig/G4_empty_file", "the error does not say which file"),
	does("runc", "TestConfig/V1_no_ociVersion", "accepted"),
	does("runc", "TestConfig/V1_ociVersion_is_not_a_version", "accepted"),
	does("runc", "TestConfig/V1_ociVersion_of_another_major", "accepted"),
	does("runc", "TestConfig/A1_empty_key", "accepted"),
	does("runc", "TestConfig/RO2_empty_path", "takes the bundle as root file system"),
	does("runc", "TestConfig/RO2_symbolic_link", "refused: not an absolute path, or a symlink"),
	skip("runc", "TestConfig/RO6_no_mount_namespace", "mounts on the host"),
	does("runc", "TestMounts/M6_attr_is_refused", "accepted (before 1.2)"),
	does("runc", "TestMounts/M10_data_on_a_bind", "ignored (before 1.2)"),
	does("runc", "TestMounts/MO_defaults", "invalid argument: passed to the file system"),
	does("runc", "TestMounts/MO_rro_on_a_file_system", "ignored"),
	does("runc", "TestMounts/RP1_shared", "private when the host's / is shared"),
	does("runc", "TestMounts/RP1_unbindable", "binds the root after making it unbindable"),
	does("runc", "TestMounts/MA1_relative_masked_path", "accepted"),
	does("runc", "TestMounts/MA2_relative_read-only_path", "accepted"),
	does("runc", "TestIDMappedMounts/MO_idmap_with_its_own_maps", "ignored (before 1.2)"),
	does("runc", "TestIDMappedMounts/MO_ridmap_maps_sub-mounts", "ignored (before 1.2)"),
	does("runc", "TestIDMappedMounts/MO_idmap_without_maps", "ignored (before 1.2)"),
	does("runc", "TestIDMappedMounts/MO_only_one_kind_of_maps", "ignored (before 1.2)"),
	skip("runc", "TestCgroupPlace/C2_a_cgroup_below_a_frozen_one_is_refused", "hangs until it is thawed"),
	skip("runc", "TestCgroupPlace/L_delete_-f_and_exec_below_a_frozen_cgroup", "exec hangs until it is thawed"),
	skip("runc", "TestCgroupPlace/L_delete_-f_of_what_is_frozen_in_a_group_of_the_container's,_and_in_another's", "neither thaws its own group nor tells what keeps it"),
	does("runc", "TestCgroupInside/M_cgroup2_on_a_hybrid_host_is_the_unified_hierarchy", "mounts the whole hierarchy"),
	does("runc", "TestCgroupInside/C21_a_limit_of_0_is_a_limit_since_1.3.0", "ignored"),
	does("runc", "TestRootless/C28_the_cgroup_mount_without_a_cgroup_of_its_own", "mounts the hierarchy itself: not permitted"),
	does("tare-runtime", "TestNetDevices/ND1_move_and_rename", "linux.netDevices is refused"),
	does("tare-runtime", "TestNetDevices/ND2_addresses", "linux.netDevices is refused"),
	does("tare-runtime", "TestNetDevices/ND5_name_template", "linux.netDevices is refused"),
	does("tare-runtime", "TestNetDevices/ND6_missing_device", "linux.netDevices is refused"),
	does("tare-runtime", "TestSeccomp/S8_no_agent", "SCMP_ACT_NOTIFY is refused"),
	does("tare-runtime", "TestSeccompNotify/S9_notify_on_run", "SCMP_ACT_NOTIFY is refused"),
	does("tare-runtime", "TestSeccompNotify/S9_notify_on_exec", "SCMP_ACT_NOTIFY is refused"),
	does("tare-runtime", "TestDevices/D6_owner_in_a_user_namespace", "the host's node is bound: it must exist, and its owner stays"),
)

func deviations(list ...deviation) map[string]map[string]ocitest.Deviation {
	m := make(map[string]map[string]ocitest.Deviation)
	for _, d := range list {
		if m[d.peer] == nil {
			m[d.peer] = make(map[string]ocitest.Deviation)
		}
		m[d.peer][d.test] = d.Deviation
	}
	return m
}
