{{/* Name of everything. Fixed, because there is one operator in a cluster, and trainers find it by name. */}}
{{- define "datahall.fullname" -}}
{{- default "datahall-operator" .Values.fullnameOverride -}}
{{- end -}}

{{/* What selects the operator's pods. A Deployment's selector never changes, so no value may change it. */}}
{{- define "datahall.selectorLabels" -}}
app.kubernetes.io/name: datahall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "datahall.labels" -}}
{{ include "datahall.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "datahall.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "datahall.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image: by digest where there is one, else by tag. Called with (list context image). */}}
{{- define "datahall.image" -}}
{{- $context := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $context.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Security of a container, as the restricted pod security standard asks for. */}}
{{- define "datahall.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "datahall.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end -}}
