"""What the examples of the Python client do, with what they print checked: the client alone.

Works in the namespace of the kubeconfig.
"""

import datetime
import os
import sys
import threading
import time
import unittest

from kubernetes import client, config, dynamic, informer, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

NS = os.environ["NS"]
SOON = 60


def until(what, check):
    """The first true answer of `check`."""
    deadline = time.monotonic() + SOON
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SOON} s: {what}; last: {answer!r}")
        time.sleep(0.05)


def labels(app):
    return {"app": app}


def pod(name, command=("sleep", "600"), **more):
    container = client.V1Container(
        name="main", image="skep.local/busybox", image_pull_policy="IfNotPresent",
        command=list(command))
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels=labels(name)),
        spec=client.V1PodSpec(containers=[container], restart_policy="Never",
                              termination_grace_period_seconds=0, **more))


def deployment(name, replicas):
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels(name)),
        spec=client.V1PodSpec(termination_grace_period_seconds=0, containers=[client.V1Container(
            name="hello", image="skep.local/hello", image_pull_policy="IfNotPresent",
            ports=[client.V1ContainerPort(container_port=8080)],
            resources=client.V1ResourceRequirements(requests={"cpu": "10m"}))]))
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name=name),
        spec=client.V1DeploymentSpec(
            replicas=replicas, template=template,
            selector=client.V1LabelSelector(match_labels=labels(name))))


class Suite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.core = client.CoreV1Api()
        cls.apps = client.AppsV1Api()
        cls.batch = client.BatchV1Api()

    def refused(self, code, reason, call, *words, **more):
        with self.assertRaises(ApiException) as caught:
            call(*words, **more)
        self.assertEqual(caught.exception.status, code)
        self.assertIn(f'"reason":"{reason}"', caught.exception.body.replace(" ", ""))

    def unless_beaten(self, write):
        """What `write` gives back; nothing when a controller wrote the object since it was read."""
        try:
            return write()
        except ApiException as error:
            self.assertEqual(error.status, 409)
            return None

    def running(self, name):
        def ready():
            found = self.core.read_namespaced_pod_status(name, NS)
            return found.status.phase == "Running" and found
        return until(f"{name} runs", ready)


class Reading(Suite):
    def test_lists_versions_and_contexts(self):
        contexts, active = config.list_kube_config_contexts()
        self.assertEqual([active["name"]], [one["name"] for one in contexts])
        self.core.list_pod_for_all_namespaces(watch=False)
        names = [one.metadata.name for one in self.core.list_namespace().items]
        self.assertLessEqual({"default", "kube-system", NS}, set(names))
        nodes = self.core.list_node().items
        self.assertTrue(all(one.status.node_info.kubelet_version for one in nodes))
        self.assertEqual(client.VersionApi().get_code().major, "1")
        groups = {one.name: one.preferred_version.version for one in client.ApisApi().get_api_versions().groups}
        self.assertEqual((groups["apps"], groups["autoscaling"]), ("v1", "v2"))
        self.assertEqual(client.CoreApi().get_api_versions().versions, ["v1"])
        resources = {one.name for one in self.core.get_api_resources().resources}
        self.assertLessEqual({"pods", "pods/log", "services/proxy"}, resources)

    def test_pages_hold_everything_once(self):
        for n in range(7):
            self.core.create_namespaced_secret(NS, client.V1Secret(
                metadata=client.V1ObjectMeta(name=f"page-{n}", labels=labels("page")),
                string_data={"n": str(n)}))
        seen, token, left = [], None, []
        while True:
            page = self.core.list_namespaced_secret(NS, label_selector="app=page", limit=3, _continue=token)
            seen += [one.metadata.name for one in page.items]
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual(seen, [f"page-{n}" for n in range(7)])
        every = self.core.list_namespaced_secret(NS, limit=1)
        self.assertGreaterEqual(every.metadata.remaining_item_count, 6)
        self.refused(400, "BadRequest", self.core.list_namespaced_secret, NS, limit=1, _continue="nonsense")
        self.core.delete_collection_namespaced_secret(NS, label_selector="app=page")
        self.assertEqual(self.core.list_namespaced_secret(NS, label_selector="app=page").items, [])

    def test_watches_see_each_change_in_order(self):
        first = self.core.list_namespaced_config_map(NS, label_selector="app=watched")
        seen = []

        def follow():
            events = watch.Watch().stream(
                self.core.list_namespaced_config_map, NS, label_selector="app=watched",
                resource_version=first.metadata.resource_version, timeout_seconds=SOON)
            for event in events:
                seen.append((event["type"], event["object"].metadata.name, event["object"].data))
                if event["type"] == "DELETED":
                    return

        follower = threading.Thread(target=follow)
        follower.start()
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="watched", labels=labels("watched")), data={"n": "1"})
        self.core.create_namespaced_config_map(NS, body)
        self.core.patch_namespaced_config_map("watched", NS, {"data": {"n": "2"}})
        self.core.delete_namespaced_config_map("watched", NS)
        follower.join(SOON)
        self.assertEqual(seen, [
            ("ADDED", "watched", {"n": "1"}), ("MODIFIED", "watched", {"n": "2"}), ("DELETED", "watched", {"n": "2"})])
        old = watch.Watch().stream(self.core.list_namespaced_config_map, NS, timeout_seconds=1)
        self.assertIn("kube-root-ca.crt", [event["object"].metadata.name for event in old])

    def test_an_informer_holds_what_the_server_has(self):
        seen = []
        shared = informer.SharedInformer(self.core.list_namespaced_config_map, namespace=NS)
        for kind in ("ADDED", "MODIFIED", "DELETED"):
            shared.add_event_handler(kind, lambda one, kind=kind: seen.append((kind, one.metadata.name)))
        shared.start()
        until("the first list", lambda: shared.cache.get_by_key(f"{NS}/kube-root-ca.crt"))
        self.core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="informed")))
        until("the new one", lambda: shared.cache.get_by_key(f"{NS}/informed"))
        self.core.delete_namespaced_config_map("informed", NS)
        until("it is gone", lambda: shared.cache.get_by_key(f"{NS}/informed") is None)
        shared.stop()
        until("its events", lambda: ("DELETED", "informed") in seen and ("ADDED", "informed") in seen)


class Writing(Suite):
    def test_a_deployment_is_made_changed_restarted_and_removed(self):
        self.apps.create_namespaced_deployment(NS, deployment("examples", 1))
        until("it is available", lambda: self.apps.read_namespaced_deployment_status("examples", NS).status.available_replicas == 1)
        found = self.apps.read_namespaced_deployment("examples", NS)
        found.spec.template.spec.containers[0].env = [client.V1EnvVar(name="A", value="b")]
        changed = self.apps.patch_namespaced_deployment("examples", NS, found)
        self.assertEqual(changed.metadata.generation, 2)

        def pause():
            fresh = self.apps.read_namespaced_deployment("examples", NS)
            fresh.spec.paused = True
            return self.apps.replace_namespaced_deployment("examples", NS, fresh).spec.paused

        until("it is paused", lambda: self.unless_beaten(pause))
        self.refused(409, "Conflict", self.apps.replace_namespaced_deployment, "examples", NS, found)
        now = datetime.datetime.now(datetime.timezone.utc).isoformat()
        annotation = {"kubectl.kubernetes.io/restartedAt": now}
        self.apps.patch_namespaced_deployment("examples", NS, {"spec": {"paused": False, "template": {"metadata": {"annotations": annotation}}}})

        def enlarge():
            scale = self.apps.read_namespaced_deployment_scale("examples", NS)
            scale.spec.replicas = 2
            return self.apps.replace_namespaced_deployment_scale("examples", NS, scale).spec.replicas == 2

        until("it is scaled", lambda: self.unless_beaten(enlarge))
        self.apps.patch_namespaced_deployment_scale("examples", NS, {"spec": {"replicas": 0}})
        foreground = client.V1DeleteOptions(propagation_policy="Foreground", grace_period_seconds=0)
        self.apps.delete_namespaced_deployment("examples", NS, body=foreground)
        until("its replica sets are gone", lambda: not self.apps.list_namespaced_replica_set(NS, label_selector="app=examples").items)

    def test_every_kind_of_patch_changes_what_it_says(self):
        self.apps.create_namespaced_deployment(NS, deployment("patched", 0))
        api = client.ApiClient()

        def patch(kind, body, **query):
            path = f"/apis/apps/v1/namespaces/{NS}/deployments/patched"
            return api.call_api(*api.param_serialize(
                "PATCH", path, query_params=list(query.items()), body=body, auth_settings=["BearerToken"],
                header_params={"Content-Type": kind, "Accept": "application/json"}))

        def state():
            found = self.apps.read_namespaced_deployment("patched", NS)
            return found.spec.paused, [one.name for one in found.spec.template.spec.containers]

        more = {"spec": {"template": {"spec": {"containers": [{"name": "more", "image": "i"}]}}}}
        patch("application/strategic-merge-patch+json", more)
        self.assertEqual(sorted(state()[1]), ["hello", "more"])
        patch("application/merge-patch+json", more)
        self.assertEqual(state()[1], ["more"])
        patch("application/json-patch+json", [{"op": "add", "path": "/spec/paused", "value": True}])
        self.assertEqual(state()[0], True)
        applied = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "patched"}, "spec": {"minReadySeconds": 3}}
        patch("application/apply-patch+yaml", applied, fieldManager="examples")
        managers = self.apps.read_namespaced_deployment("patched", NS).metadata.managed_fields
        self.assertIn(("examples", "Apply"), [(one.manager, one.operation) for one in managers])
        self.core.create_namespaced_config_map(NS, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="unpatched")), dry_run="All")
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "unpatched", NS)

    def test_jobs_and_cron_jobs_are_made_and_removed(self):
        template = client.V1PodTemplateSpec(spec=pod("x").spec)
        self.batch.create_namespaced_job(NS, client.V1Job(
            metadata=client.V1ObjectMeta(name="pi"), spec=client.V1JobSpec(template=template, backoff_limit=4, suspend=True)))
        job = self.batch.read_namespaced_job("pi", NS)
        self.assertEqual(job.spec.completions, 1)
        self.batch.create_namespaced_cron_job(NS, client.V1CronJob(
            metadata=client.V1ObjectMeta(name="tick"),
            spec=client.V1CronJobSpec(schedule="*/5 * * * *", job_template=client.V1JobTemplateSpec(spec=client.V1JobSpec(template=template)))))
        self.batch.patch_namespaced_cron_job("tick", NS, {"spec": {"suspend": True}})
        self.assertTrue(self.batch.read_namespaced_cron_job("tick", NS).spec.suspend)
        self.batch.delete_namespaced_cron_job("tick", NS)
        self.batch.delete_namespaced_job("pi", NS, propagation_policy="Background")
        until("the job is gone", lambda: not self.batch.list_namespaced_job(NS).items)

    def test_kinds_of_every_group(self):
        meta = client.V1ObjectMeta(name="many")
        service = self.core.create_namespaced_service(NS, client.V1Service(
            metadata=meta, spec=client.V1ServiceSpec(selector=labels("x"), ports=[client.V1ServicePort(port=80, target_port=8080)])))
        self.assertTrue(service.spec.cluster_ip)
        backend = client.V1IngressBackend(service=client.V1IngressServiceBackend(name="many", port=client.V1ServiceBackendPort(number=80)))
        rule = client.V1IngressRule(host="a.example", http=client.V1HTTPIngressRuleValue(
            paths=[client.V1HTTPIngressPath(path="/", path_type="Exact", backend=backend)]))
        networking = client.NetworkingV1Api()
        networking.create_namespaced_ingress(NS, client.V1Ingress(metadata=meta, spec=client.V1IngressSpec(rules=[rule])))
        networking.create_namespaced_network_policy(NS, client.V1NetworkPolicy(
            metadata=meta, spec=client.V1NetworkPolicySpec(pod_selector=client.V1LabelSelector())))
        policy = client.PolicyV1Api()
        policy.create_namespaced_pod_disruption_budget(NS, client.V1PodDisruptionBudget(
            metadata=meta, spec=client.V1PodDisruptionBudgetSpec(min_available=1, selector=client.V1LabelSelector(match_labels=labels("x")))))
        scaling = client.AutoscalingV2Api()
        target = client.V2CrossVersionObjectReference(api_version="apps/v1", kind="Deployment", name="x")
        scaling.create_namespaced_horizontal_pod_autoscaler(NS, client.V2HorizontalPodAutoscaler(
            metadata=meta, spec=client.V2HorizontalPodAutoscalerSpec(scale_target_ref=target, max_replicas=3)))
        old = client.AutoscalingV1Api().read_namespaced_horizontal_pod_autoscaler("many", NS)
        self.assertEqual(old.spec.max_replicas, 3)
        roles = client.RbacAuthorizationV1Api()
        roles.create_namespaced_role(NS, client.V1Role(metadata=meta, rules=[client.V1PolicyRule(api_groups=[""], resources=["pods"], verbs=["get"])]))
        roles.create_namespaced_role_binding(NS, client.V1RoleBinding(
            metadata=meta, subjects=[client.RbacV1Subject(kind="User", name="u", api_group="rbac.authorization.k8s.io")],
            role_ref=client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name="many")))
        for listed in (networking.list_namespaced_ingress, networking.list_namespaced_network_policy,
                       policy.list_namespaced_pod_disruption_budget, scaling.list_namespaced_horizontal_pod_autoscaler,
                       roles.list_namespaced_role, roles.list_namespaced_role_binding):
            self.assertEqual([one.metadata.name for one in listed(NS).items], ["many"])
        review = client.AuthorizationV1Api().create_self_subject_access_review(client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(namespace=NS, verb="get", resource="pods"))))
        self.assertTrue(review.status.allowed)
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=["a"], expiration_seconds=600))
        token = self.core.create_namespaced_service_account_token("default", NS, request).status.token
        review = client.AuthenticationV1Api().create_token_review(client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token, audiences=["a"])))
        self.assertEqual(review.status.user.username, f"system:serviceaccount:{NS}:default")
        self.refused(409, "AlreadyExists", self.core.create_namespaced_service, NS, client.V1Service(
            metadata=meta, spec=client.V1ServiceSpec(ports=[client.V1ServicePort(port=80)])))
        self.refused(422, "Invalid", self.core.create_namespaced_service, NS, {"metadata": {"name": "Bad Name"}, "spec": {"ports": [{"port": 80}]}})

    def test_a_manifest_makes_what_it_holds(self):
        manifest = [
            {"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-yaml-1"}},
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "from-yaml-2"}}]},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "from-yaml"}, "spec": {
                "replicas": 0, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}]
        utils.create_from_yaml(client.ApiClient(), yaml_objects=manifest, namespace=NS)
        self.assertEqual(self.apps.read_namespaced_deployment("from-yaml", NS).spec.replicas, 0)
        with self.assertRaises(utils.FailToCreateError):
            utils.create_from_yaml(client.ApiClient(), yaml_objects=manifest[:1], namespace=NS)

    def test_custom_objects_are_used_as_any(self):
        group = f"{NS}.example"
        schema = client.V1JSONSchemaProps(type="object", properties={
            "spec": client.V1JSONSchemaProps(type="object", properties={"n": client.V1JSONSchemaProps(type="integer")}),
            "status": client.V1JSONSchemaProps(type="object", x_kubernetes_preserve_unknown_fields=True)})
        version = client.V1CustomResourceDefinitionVersion(
            name="v1", served=True, storage=True, schema=client.V1CustomResourceValidation(open_apiv3_schema=schema),
            subresources=client.V1CustomResourceSubresources(status={}))
        names = client.V1CustomResourceDefinitionNames(kind="Tab", plural="tabs", singular="tab")
        extensions = client.ApiextensionsV1Api()
        extensions.create_custom_resource_definition(client.V1CustomResourceDefinition(
            metadata=client.V1ObjectMeta(name=f"tabs.{group}"),
            spec=client.V1CustomResourceDefinitionSpec(group=group, scope="Namespaced", names=names, versions=[version])))

        def established():
            conditions = extensions.read_custom_resource_definition(f"tabs.{group}").status.conditions or []
            return any(one.type == "Established" and one.status == "True" for one in conditions)

        until("the definition is established", established)
        objects = client.CustomObjectsApi()
        place = (group, "v1", NS, "tabs")
        body = {"apiVersion": f"{group}/v1", "kind": "Tab", "metadata": {"name": "t"}, "spec": {"n": 1, "none": 2}}
        made = objects.create_namespaced_custom_object(*place, body)
        self.assertEqual(made["spec"], {"n": 1})
        objects.patch_namespaced_custom_object(*place, "t", {"spec": {"n": 2}})
        objects.patch_namespaced_custom_object_status(*place, "t", {"status": {"seen": True}})
        found = objects.get_namespaced_custom_object(*place, "t")
        self.assertEqual((found["spec"], found["status"]), ({"n": 2}, {"seen": True}))
        self.assertEqual(len(objects.list_cluster_custom_object(group, "v1", "tabs")["items"]), 1)
        self.refused(422, "Invalid", objects.patch_namespaced_custom_object, *place, "t", {"spec": {"n": "x"}})
        objects.delete_namespaced_custom_object(*place, "t")
        extensions.delete_custom_resource_definition(f"tabs.{group}")

    def test_the_dynamic_client(self):
        dynamics = dynamic.DynamicClient(client.ApiClient())
        maps = dynamics.resources.get(api_version="v1", kind="ConfigMap")
        body = {"metadata": {"name": "dynamic", "labels": labels("dynamic")}, "data": {"a": "b"}}
        maps.create(body=body, namespace=NS)
        with self.assertRaises(ConflictError):
            maps.create(body=body, namespace=NS)
        maps.patch(name="dynamic", namespace=NS, body={"data": {"c": "d"}}, content_type="application/merge-patch+json")
        self.assertEqual(maps.get(name="dynamic", namespace=NS).data.to_dict(), {"a": "b", "c": "d"})
        applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"a": "mine"}}
        with self.assertRaises(ConflictError):
            maps.server_side_apply(name="dynamic", namespace=NS, body=applied, field_manager="me")
        maps.server_side_apply(name="dynamic", namespace=NS, body=applied, field_manager="me", force_conflicts=True)
        self.assertEqual(maps.get(label_selector="app=dynamic", namespace=NS).items[0].data.a, "mine")
        events = maps.watch(namespace=NS, name="dynamic", timeout=1)
        self.assertEqual([event["type"] for event in events], ["ADDED"])
        maps.delete(name="dynamic", namespace=NS)
        with self.assertRaises(NotFoundError):
            maps.get(name="dynamic", namespace=NS)
        pods = dynamics.resources.get(api_version="v1", kind="Pod")
        self.assertIn("log", pods.subresources)
        found = dynamics.resources.search(kind="Deployment")
        self.assertEqual([one.group_version for one in found if not one.kind.endswith("List")], ["apps/v1"])

    def test_nodes_are_labelled_and_events_are_written(self):
        node = self.core.list_node().items[0].metadata.name
        label = f"examples/{NS}"
        self.core.patch_node(node, {"metadata": {"labels": {label: "yes"}}})
        self.assertEqual([one.metadata.name for one in self.core.list_node(label_selector=f"{label}=yes").items], [node])
        self.core.patch_node(node, {"metadata": {"labels": {label: None}}})
        self.assertEqual(self.core.list_node(label_selector=label).items, [])
        now = datetime.datetime.now(datetime.timezone.utc)
        client.EventsV1Api().create_namespaced_event(NS, client.EventsV1Event(
            metadata=client.V1ObjectMeta(name="told"), event_time=now, action="Tell", reason="Told", type="Normal", note="a note",
            reporting_controller="examples", reporting_instance="one",
            regarding=client.V1ObjectReference(kind="Pod", name="x", namespace=NS)))
        old = self.core.list_namespaced_event(NS, field_selector="reason=Told").items
        self.assertEqual([(one.message, one.involved_object.name) for one in old], [("a note", "x")])


class Leading(Suite):
    def lead(self, lock):
        led = threading.Event()
        configuration = electionconfig.Config(
            lock, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=led.set, onstopped_leading=lambda: None)
        threading.Thread(target=leaderelection.LeaderElection(configuration).run, daemon=True).start()
        self.assertTrue(led.wait(SOON))

    def test_a_leader_is_elected_by_each_lock(self):
        self.lead(LeaseLock("leader", NS, "candidate"))
        found = client.CoordinationV1Api().read_namespaced_lease("leader", NS)
        self.assertEqual(found.spec.holder_identity, "candidate")
        self.lead(ConfigMapLock("leader", NS, "candidate"))
        record = self.core.read_namespaced_config_map("leader", NS).metadata.annotations
        self.assertIn("candidate", str(record))


class Streams(Suite):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.core.create_namespaced_pod(NS, pod("box", ("sh", "-c", "echo started; sleep 600")))
        hello = pod("server")
        hello.spec.containers[0].image = "skep.local/hello"
        hello.spec.containers[0].command = None
        name = client.V1EnvVarSource(field_ref=client.V1ObjectFieldSelector(field_path="metadata.name"))
        hello.spec.containers[0].env = [client.V1EnvVar(name="POD_NAME", value_from=name)]
        cls.core.create_namespaced_pod(NS, hello)

    def test_commands_of_a_pod(self):
        self.running("box")
        call = self.core.connect_get_namespaced_pod_exec
        words = ["sh", "-c", "echo out; echo err >&2"]
        said = stream(call, "box", NS, command=words, stderr=True, stdin=False, stdout=True, tty=False)
        self.assertEqual(sorted(said.split()), ["err", "out"])
        shell = stream(call, "box", NS, command=["sh"], stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False)
        shell.write_stdin("echo one\n")
        self.assertEqual(shell.readline_stdout(timeout=SOON), "one")
        shell.write_stdin("id -u >&2\n")
        self.assertEqual(shell.readline_stderr(timeout=SOON), "0")
        shell.write_stdin("exit 3\n")
        shell.run_forever(timeout=SOON)
        self.assertEqual(shell.returncode, 3)
        terminal = stream(call, "box", NS, command=["sh", "-c", "test -t 0 && echo terminal"], stderr=False, stdin=False, stdout=True, tty=True)
        self.assertEqual(terminal.strip(), "terminal")

    def test_logs_of_a_pod(self):
        self.running("box")
        until("its log", lambda: self.core.read_namespaced_pod_log("box", NS) == "started\n")
        lines = watch.Watch().stream(self.core.read_namespaced_pod_log, "box", NS, follow=True)
        self.assertEqual(next(lines), "started")
        self.refused(404, "NotFound", self.core.read_namespaced_pod_log, "none", NS)

    def test_ports_of_a_pod(self):
        self.running("server")
        forward = portforward(self.core.connect_get_namespaced_pod_portforward, "server", NS, ports="8080,8081")
        http = forward.socket(8080)
        http.setblocking(True)
        http.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := http.recv(4096):
            answer += part
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
        self.assertIn(b"pod server", answer)
        self.assertIsNone(forward.error(8080))
        answer = self.core.connect_get_namespaced_pod_proxy("server:8080", NS)
        self.assertIn("pod server", answer)

    def test_a_pod_is_evicted(self):
        self.core.create_namespaced_pod(NS, pod("evicted"))
        self.running("evicted")
        body = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted", namespace=NS))
        self.core.create_namespaced_pod_eviction("evicted", NS, body)
        until("it is gone", lambda: not self.core.list_namespaced_pod(NS, field_selector="metadata.name=evicted").items)


if __name__ == "__main__":
    unittest.main(verbosity=2, argv=[sys.argv[0], *sys.argv[1:]])
