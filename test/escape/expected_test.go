package escape

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// red is what a peer is known to lose in a test.
func red(does string) ocitest.Deviation { return ocitest.Deviation{Does: does} }

// expected are the tests that are red with a runtime of one version: they must fail there, and no other may.
var expected = map[string]map[string]ocitest.Deviation{
	"runc 1.1.5": {
		"TestDestinations/CVE-2019-16884_CVE-2015-3631_mounts_over_proc":                                                       red("mounts inside /proc are accepted"),
		"TestDestinations/CVE-2019-16884_issue7_A6_mounts_that_a_link_leads_to_proc":                                           red("mounts inside /proc are accepted"),
		"TestFilters/CVE-2023-2431_an_empty_or_broken_filter_is_refused":                                                       red("an empty profile loads none"),
		"TestFilters/CVE-2026-123876_containerd#13330_moby#52494_denied_sockets_by_other_entries,_AF_VSOCK":                    red("a socket is made by the upper half of an argument"),
		"TestGroupsOfRootless/issue7_A3_exec_keeps_no_group_of_the_host,_helper_for_groups":                                    red("supplementary groups of the caller stay"),
		"TestGroupsOfRootless/issue7_A3_exec_keeps_no_group_of_the_host,_helpers_for_both":                                     red("supplementary groups of the caller stay"),
		"TestHostNamespaces/issue7_A5_CVE-2022-0532_sysctl_of_the_host's_namespace_by_path,_domain_name":                       red("sets names and parameters of the host"),
		"TestHostNamespaces/issue7_A5_CVE-2022-0532_sysctl_of_the_host's_namespace_by_path,_ipc":                               red("sets names and parameters of the host"),
		"TestHostNamespaces/issue7_A5_CVE-2022-0532_sysctl_of_the_host's_namespace_by_path,_mqueue":                            red("sets names and parameters of the host"),
		"TestHostNamespaces/issue7_A5_domainname_of_the_host's_namespace_by_path":                                              red("sets names and parameters of the host"),
		"TestHostNamespaces/issue7_A5_hostname_of_the_host's_namespace_by_path":                                                red("sets names and parameters of the host"),
		"TestIdentity/CVE-2026-30892_users_that_are_not_numbers":                                                               red("4294967296 and +0 are user 0"),
		"TestJoiningProcess/CVE-2016-9962_issue7_A8_capabilities_with_CAP_SYS_PTRACE,_a_container_in_the_same_pid_namespace":   red("a process is seen before it has given up its privileges"),
		"TestJoiningProcess/CVE-2016-9962_issue7_A8_capabilities_with_CAP_SYS_PTRACE,_exec":                                    red("a process is seen before it has given up its privileges"),
		"TestKernelFiles/CVE-2023-25809_cgroups_that_the_user_owns_are_not_writable_with_the_configuration_of_spec_--rootless": red("a cgroup of the user is writable"),
		"TestKernelFiles/GHSA-7ww5-4wqc-m92c_the_default_configuration_masks_the_power_counters":                               red("the power counters are not masked"),
		"TestLinks/CVE-2025-31133_dev_null_is_a_link":                                                                          red("the image's null device is the mask"),
		"TestLinks/CVE-2026-41579_CVE-2026-47766_dev_is_a_link":                                                                red("makes links and devices on the host"),
		"TestLinks/CVE-2026-41579_issue7_A6_a_bind_that_a_link_leads_to_dev":                                                   red("makes links and devices on the host"),
		"TestLinks/CVE-2026-88265_streams_are_not_reopened_on_a_link":                                                          red("reopens streams on a file of the host"),
		"TestPaths/runc_1.5.2_crun_1.29_exec_--cgroup_leaves_the_container's_cgroup":                                           red("prefixes and \"..\" lead to another cgroup"),
		"TestPrivilegesOfExec/issue7_A2_exec_--process_does_not_lift_no_new_privs_and_the_filter":                              red("--process lifts no_new_privs"),
		"TestSignals/issue7_A10_hooks_have_default_signals_too":                                                                red("what the caller ignores and blocks stays so"),
		"TestSignals/issue7_A10_signals_of_the_caller,_create":                                                                 red("what the caller ignores and blocks stays so"),
		"TestSignals/issue7_A10_signals_of_the_caller,_exec":                                                                   red("what the caller ignores and blocks stays so"),
		"TestSignals/issue7_A10_signals_of_the_caller,_run":                                                                    red("what the caller ignores and blocks stays so"),
		"TestCopyUp/issue7_F7_holes_of_files_are_not_filled":                                                                   red("holes are filled"),
		"TestDevicesOfMappedRoot/issue7_F13_a_mapped_root_cannot_change_the_host's_devices":                                    red("the host's nodes can be changed"),
		"TestHiddenProcesses/issue7_F5_delete_--force_removes_processes_in_deep_cgroups_and_the_groups":                        red("processes stay"),
		"TestHiddenProcesses/issue7_F5_ps_and_kill_--all_reach_processes_in_deep_cgroups":                                      red("processes stay"),
		"TestJoiningProcess/issue7_A8_environment_and_filter_with_CAP_SYS_PTRACE,_exec":                                        red("a process is seen before it is confined"),
		"TestJoiningProcess/issue7_A8_environment_with_CAP_SYS_PTRACE,_exec_in_a_container_of_the_same_pid_namespace":          red("a process is seen before it has given up its privileges"),
		"TestKernelLog/issue7_F8_the_kernel's_log_is_not_read_as_a_list_of_users":                                              red("reads the kernel's log until it has more"),
		"TestMovedInit/issue7_F10_exec_does_not_follow_an_unprivileged_first_process_into_its_mount_namespace":                 red("executes what the user has mounted"),
		"TestPrivilegesOfExec/issue7_F11_exec_--process_with_some_limits_has_the_others_of_the_container":                      red("limits of the caller stay"),
		"TestStoppedExec/issue7_F12_an_exec_whose_process_is_stopped_before_it_is_the_program_goes_on":                         red("hangs"),
		"TestStreams/issue7_A9_files_of_the_caller_of_a_detached_container_keep_their_owner":                                   red("chowned"),
		"TestStreams/issue7_A9_a_directory_as_stdin_of_a_detached_container_leads_nowhere":                                     red("a directory is handed over"),

		"TestCopyUp/issue7_G2_a_lease_on_a_file_does_not_delay_create":                                                           red("waits for the lease"),
		"TestCopyUp/issue7_G2_delete_--force_ends_a_create_that_copies":                                                          red("copies in its own process"),
		"TestFrozenInit/issue7_G5_delete_--force_ends_a_first_process_that_others_freeze_again_and_again":                        red("the first process stays"),
		"TestMovedInit/issue7_G3_exec_does_not_follow_an_unprivileged_first_process_out_of_a_mount_namespace_that_it_has_joined": red("executes what the user has mounted"),
	},
}

// slow are tests that take minutes with a runtime that starts a container in 50 ms, that are red because a call does
// not end, or that speak tare's own protocol.
var slow = regexp.MustCompile(`^Test\w*Races?/|^TestCopyUp/|^TestHidden|^TestFrozen|^TestJoiningProcess/issue7_A8_environment_and|^TestKernelLog/|^TestStoppedExec/|^TestTakenSocket/`)

// TestPeers runs the tests that are red with the peers that are installed: the suite finds in them what it would find
// in tare.
func TestPeers(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the runtime under test is a peer itself")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for peer, list := range expected {
		name, version, _ := strings.Cut(peer, " ")
		if version == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(name, "--version").Output()
			if err != nil {
				t.Skipf("%s is not installed: %v", name, err)
			}
			if first, _, _ := strings.Cut(string(out), "\n"); !strings.Contains(first+"+", " "+version+"+") {
				t.Skipf("%s is not version %s: %s", name, version, first)
			}
			var tops, subs []string
			for test := range list {
				top, sub, _ := strings.Cut(test, "/")
				if slow.MatchString(test) {
					continue
				}
				if !slices.Contains(tops, top) {
					tops = append(tops, top)
				}
				subs = append(subs, regexp.QuoteMeta(sub))
			}
			c := exec.Command(self, "-test.v", "-test.run", "^("+strings.Join(tops, "|")+")$/^("+strings.Join(subs, "|")+")$")
			c.Env = append(os.Environ(), "RUNTIME="+name)
			text, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("not as expected: %v\n%s", err, text)
			}
			if n := strings.Count(string(text), " deviates as known: "); n < len(subs) || n < 5 {
				t.Errorf("%d tests are red, %d are listed, at least 5 are wanted:\n%s", n, len(subs), text)
			}
		})
	}
}
