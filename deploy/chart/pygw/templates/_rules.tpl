{{/*
What pygw asks of the API server, and no more; tests/deploy/test_rbac.py compares it with the requests it sends.
The discovery of API groups, which every account may read (system:discovery), is not among it.
*/}}

{{/* Of each namespace that is watched. */}}
{{- define "pygw.rules.objects" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, grpcroutes, httproutes, listenersets, backendtlspolicies, referencegrants]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways/status, grpcroutes/status, httproutes/status, listenersets/status, backendtlspolicies/status]
  verbs: [patch]
- apiGroups: [pygw.dev]
  resources: [gatewayconfigs]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
# One for each Gateway, with the labels and annotations of its spec.infrastructure; without rights and without a token.
# The API server asks for create where patch (server-side apply) finds nothing.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Of the cluster. */}}
{{- define "pygw.rules.cluster" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
# For the version of the Gateway API that is installed (condition SupportedVersion).
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [gatewayclasses.gateway.networking.k8s.io]
  verbs: [list, watch]
{{- end -}}

{{/* In place of the cluster's Namespaces, where only some are watched: each lets itself be read. */}}
{{- define "pygw.rules.ownNamespace" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{- end -}}

{{/* Of the namespaces that certificates lie in. */}}
{{- define "pygw.rules.certificates" -}}
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [list, watch]
{{- end -}}

{{/* Of the namespace of the installation. */}}
{{- define "pygw.rules.installation" -}}
# Who writes statuses. (RBAC cannot restrict create by name.)
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "pygw.leaseName" . }}]
  verbs: [get, update]
{{- if eq (include "pygw.addressSource" .) "nodes" }}
# On which nodes the replicas are: status.addresses.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- end }}
{{- if and .Values.watchNamespaces (eq (include "pygw.addressSource" .) "service") (not (has .Release.Namespace .Values.watchNamespaces)) }}
# The addresses of our own load balancer: status.addresses.
- apiGroups: [""]
  resources: [services]
  resourceNames: [{{ include "pygw.fullname" . }}]
  verbs: [list, watch]
{{- end }}
{{- end -}}

{{/* A Role and its binding; call with (dict "root" $ "name" ... "namespace" ... "rules" ...). */}}
{{- define "pygw.role" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "pygw.labels" .root | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "pygw.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "pygw.serviceAccountName" .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}
