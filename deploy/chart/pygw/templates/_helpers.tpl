{{/* Names and labels, and what follows from several values at once. */}}

{{- define "pygw.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of what belongs to no namespace: two installations of the same name are then two. */}}
{{- define "pygw.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "pygw.fullname" .) -}}
{{- end -}}

{{- define "pygw.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pygw.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "pygw.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "pygw.metadata" -}}
name: {{ include "pygw.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "pygw.labels" . | nindent 2 }}
{{- end -}}

{{- define "pygw.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "pygw.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the ServiceAccount, or let the chart create one (serviceAccount.create)" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "pygw.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where status.addresses come from: static, service or nodes. */}}
{{- define "pygw.addressSource" -}}
{{- if .Values.gatewayAddresses -}}static
{{- else if and .Values.service.enabled (ne .Values.service.type "NodePort") (not .Values.hostPorts) -}}service
{{- else -}}nodes
{{- end -}}
{{- end -}}

{{/*
The Lease's name, as lease_name() of pygw/control/kube/lease.py makes it; the role names it. controllerName is ASCII
(values.schema.json).
*/}}
{{- define "pygw.leaseName" -}}
{{- $name := regexReplaceAll "[^a-z0-9.-]" (lower .Values.controllerName) "-" -}}
{{- if or .Values.watchNamespaces (gt (len $name) 200) -}}
{{- $scope := concat (list .Values.controllerName) (.Values.watchNamespaces | uniq | sortAlpha) | join "\x00" -}}
{{- $name = printf "%s-%s" (trunc 200 $name) (sha256sum $scope | trunc 10) -}}
{{- end -}}
{{- $name | trimAll "-." -}}
{{- end -}}

{{/* A number as it was written: Helm reads all as floating-point, and would print 1048576 as 1.048576e+06. */}}
{{- define "pygw.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* Refuses what the schema cannot see: two ports of one name or number. */}}
{{- define "pygw.checkPorts" -}}
{{- $names := list -}}{{- $outside := list -}}{{- $local := list (int64 .Values.metrics.port) (int64 9901) -}}
{{- range .Values.ports -}}
{{- if has .name $names -}}{{- fail (printf "ports: two have the name %s" .name) -}}{{- end -}}
{{- if has (int64 .port) $outside -}}{{- fail (printf "ports: port %v is there twice" .port) -}}{{- end -}}
{{- if has (int64 .containerPort) $local -}}
{{- fail (printf "ports: containerPort %v of %s is in use by another port, the metrics or the admin server (9901)" .containerPort .name) -}}
{{- end -}}
{{- $names = append $names .name -}}{{- $outside = append $outside (int64 .port) -}}{{- $local = append $local (int64 .containerPort) -}}
{{- end -}}
{{- end -}}
