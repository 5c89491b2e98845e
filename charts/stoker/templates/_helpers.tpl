{{- define "stoker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of objects begin with it. Short enough for what is appended. */}}
{{- define "stoker.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains (include "stoker.name" .) .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "stoker.name" .) | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By these, and a component, pods are selected: they never change in the life of a release. */}}
{{- define "stoker.selector" -}}
app.kubernetes.io/name: {{ include "stoker.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "stoker.labels" -}}
{{ include "stoker.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "stoker.image" -}}
{{- $repository := required "image.repository is empty: name the platform's image, such as registry.example.org/stoker" .Values.image.repository -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "stoker.nats.image" -}}
{{- if .Values.nats.image.repository -}}
{{- printf "%s:%s" .Values.nats.image.repository (required "nats.image.tag is empty: name the version of the image in nats.image.repository" .Values.nats.image.tag) -}}
{{- else -}}
{{- include "stoker.image" . -}}
{{- end -}}
{{- end -}}

{{- define "stoker.builder.image" -}}
{{- $repository := required "builder.image.repository is empty: name the image of the Dockerfile's target `builder`" .Values.builder.image.repository -}}
{{- printf "%s:%s" $repository (.Values.builder.image.tag | default .Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* The pipeline's address, for gateways. */}}
{{- define "stoker.builder.url" -}}
{{- $host := default (printf "%s-builder.%s" (include "stoker.fullname" .) .Release.Namespace) .Values.builder.clusterIP -}}
{{- printf "http://%s:8084" $host -}}
{{- end -}}

{{/* The gateway's address within the cluster. */}}
{{- define "stoker.gateway.url" -}}
{{- $service := .Values.gateway.service -}}
{{- printf "http://%s:%d" (default (printf "%s.%s" $service.name .Release.Namespace) $service.clusterIP) (int $service.port) -}}
{{- end -}}

{{- define "stoker.publicUrl" -}}
{{- if .Values.builder.publicUrl -}}
{{- .Values.builder.publicUrl -}}
{{- else if and .Values.ingress.enabled .Values.ingress.host (not (hasPrefix "*" .Values.ingress.host)) -}}
{{- printf "%s://%s" (ternary "https" "http" .Values.ingress.tls.enabled) .Values.ingress.host -}}
{{- else -}}
{{- include "stoker.gateway.url" . -}}
{{- end -}}
{{- end -}}

{{- define "stoker.passwordSecret" -}}
{{- default "basic-auth" .Values.auth.existingSecret -}}
{{- end -}}

{{/* Whether this release runs a NATS of its own: "true" or nothing. */}}
{{- define "stoker.nats.own" -}}
{{- if and .Values.async.enabled .Values.nats.enabled -}}true{{- end -}}
{{- end -}}

{{- define "stoker.nats.url" -}}
{{- if .Values.nats.enabled -}}
{{- $host := default (printf "%s-nats.%s" (include "stoker.fullname" .) .Release.Namespace) .Values.nats.clusterIP -}}
{{- printf "nats://%s:4222" $host -}}
{{- else -}}
{{- required "nats.url is empty: name your NATS, or set nats.enabled or turn async calls off with async.enabled=false" .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{- define "stoker.nats.secret" -}}
{{- if .Values.nats.enabled -}}
{{- printf "%s-nats" (include "stoker.fullname" .) -}}
{{- else -}}
{{- .Values.nats.auth.secret -}}
{{- end -}}
{{- end -}}

{{/* The flags by which a process reaches the broker; the files are those of `stoker.nats.mounts`. */}}
{{- define "stoker.nats.flags" -}}
- {{ include "stoker.nats.url" . | printf "--nats=%s" | quote }}
{{- if .Values.nats.enabled }}
- --nats-token-file=/etc/stoker/nats/token
{{- else if .Values.nats.auth.secret }}
{{- if eq .Values.nats.auth.kind "token" }}
- --nats-token-file=/etc/stoker/nats/token
{{- else if eq .Values.nats.auth.kind "creds" }}
- --nats-creds=/etc/stoker/nats/creds
{{- else }}
- {{ required "nats.auth.user is empty: kind password needs a user" .Values.nats.auth.user | printf "--nats-user=%s" | quote }}
- --nats-password-file=/etc/stoker/nats/password
{{- end }}
{{- end }}
{{- if .Values.nats.caSecret }}
- --nats-ca=/etc/stoker/nats-ca/ca.crt
{{- end }}
{{- end -}}

{{- define "stoker.nats.mounts" -}}
{{- if include "stoker.nats.secret" . }}
- {name: nats, mountPath: /etc/stoker/nats, readOnly: true}
{{- end }}
{{- if .Values.nats.caSecret }}
- {name: nats-ca, mountPath: /etc/stoker/nats-ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "stoker.nats.volumes" -}}
{{- with include "stoker.nats.secret" . }}
- name: nats
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.nats.caSecret }}
- name: nats-ca
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* One of a cluster, so its name holds the namespace. */}}
{{- define "stoker.priorityClass" -}}
{{- if .Values.priorityClass.create -}}
{{- default (printf "%s-%s" .Release.Namespace (include "stoker.fullname" .) | trimPrefix "-") .Values.priorityClass.name -}}
{{- else -}}
{{- .Values.priorityClass.name -}}
{{- end -}}
{{- end -}}

{{/* Below functions, which are below the rest. */}}
{{- define "stoker.builder.priorityClass" -}}
{{- if .Values.priorityClass.create -}}
{{- include "stoker.priorityClass" . }}-builder
{{- else -}}
{{- .Values.priorityClass.builderName -}}
{{- end -}}
{{- end -}}

{{/* What the platform's pods have in common. */}}
{{- define "stoker.pod" -}}
enableServiceLinks: false
{{- with (eq .component "builder" | ternary (include "stoker.builder.priorityClass" .root) (include "stoker.priorityClass" .root)) }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
  {{- range $name, $id := .root.Values.podSecurityContext }}
  {{- if not (kindIs "invalid" $id) }}
  {{ $name }}: {{ int64 $id }}
  {{- end }}
  {{- end }}
  {{- with .groups }}
  supplementalGroups: {{ toJson . }}
  {{- end }}
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "stoker.container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
{{- end -}}

{{/* As `stoker serve` configures the broker that it starts itself, but for the address and the folder. */}}
{{- define "stoker.nats.configuration" -}}
listen: "0.0.0.0:4222"
server_name: "stoker"
max_payload: 18874368
max_pending: 256MB
write_deadline: "30s"
authorization { token: $NATS_TOKEN }
jetstream {
  store_dir: "/data"
  max_memory_store: 64MB
  max_file_store: {{ .Values.nats.storage.maxFileStore }}
  sync_interval: {{ eq .Values.async.durability "always" | ternary "always" "\"2s\"" }}
}
{{- end -}}
