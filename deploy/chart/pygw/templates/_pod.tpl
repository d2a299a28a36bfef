{{/* The Pod, the same for Deployment and DaemonSet. */}}

{{- define "pygw.podTemplate" -}}
{{- include "pygw.checkPorts" . -}}
metadata:
  labels:
    # None that changes from version to version: replicas find each other by them (status.addresses).
    {{- include "pygw.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "pygw.serviceAccountName" . }}
  automountServiceAccountToken: true
  # A Service named "pygw" would put PYGW_PORT and the like into the environment, where pygw looks for its options.
  enableServiceLinks: false
  # SIGTERM begins the drain: not ready, still accepting for the delay, GOAWAY, calls finish. So there is no preStop
  # hook, which would only put that off.
  terminationGracePeriodSeconds: {{ include "pygw.gracePeriod" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: pygw
      image: {{ include "pygw.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- include "pygw.arguments" . | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: PYGW_NODE
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- range .Values.ports }}
        - name: {{ .name }}
          containerPort: {{ include "pygw.number" .containerPort }}
          {{- if $.Values.hostPorts }}
          hostPort: {{ include "pygw.number" .port }}
          {{- end }}
          protocol: TCP
        {{- end }}
        - name: metrics
          containerPort: {{ include "pygw.number" .Values.metrics.port }}
          protocol: TCP
      # Starting takes a second or two, on a busy node many more; a Pod that hangs later is found by the liveness probe.
      startupProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      # Once every worker serves the first complete configuration; an API server that goes away later changes nothing.
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.extraVolumeMounts }}
      volumeMounts:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- with .Values.extraVolumes }}
  volumes:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  {{- include "pygw.topologySpread" . | nindent 2 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "pygw.gracePeriod" -}}
{{- with .Values.drain -}}
{{- addf .delay .timeout .margin | ceil | int64 -}}
{{- end -}}
{{- end -}}

{{- define "pygw.arguments" -}}
- run
- --kubernetes
- --controller-name={{ .Values.controllerName }}
- --workers={{ include "pygw.number" .Values.workers }}
{{- range .Values.ports }}
- --port-map={{ include "pygw.number" .port }}={{ include "pygw.number" .containerPort }}
{{- end }}
- --admin=127.0.0.1:9901
# In brackets, in which an address of either family may be.
- --probe-address=[$(POD_IP)]:{{ include "pygw.number" .Values.metrics.port }}
- --drain-delay={{ include "pygw.number" .Values.drain.delay }}
- --drain-timeout={{ include "pygw.number" .Values.drain.timeout }}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
- --access-log={{ .Values.log.access }}
{{- range .Values.gatewayAddresses }}
- --gateway-address={{ . }}
{{- end }}
{{- if eq (include "pygw.addressSource" .) "service" }}
- --gateway-service=$(POD_NAMESPACE)/{{ include "pygw.fullname" . }}
{{- end }}
{{- range .Values.watchNamespaces | uniq | sortAlpha }}
- --watch-namespace={{ . }}
{{- end }}
{{- if .Values.watchNamespaces }}
- --gateway-class={{ .Values.gatewayClass.name }}
{{- end }}
{{- if .Values.allowExternalNames }}
- --allow-external-names
{{- end }}
{{- range .Values.trustedProxies }}
- --trusted-proxy={{ . }}
{{- end }}
{{- range .Values.proxyProtocolFrom }}
- --proxy-protocol-from={{ . }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- --set={{ $name }}={{ include "pygw.number" $value }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "pygw.topologySpread" -}}
{{- if .Values.topologySpreadConstraints -}}
topologySpreadConstraints:
{{- range .Values.topologySpreadConstraints }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "pygw.selectorLabels" $ | fromYaml)) "matchLabelKeys" (list "pod-template-hash") }}
  {{- if hasKey . "labelSelector" }}{{ $own = dict }}{{ end }}
  - {{ merge (deepCopy .) $own | toYaml | nindent 4 | trim }}
{{- end }}
{{- end -}}
{{- end -}}
