//! The 55 calls of `feast.registry.RegistryServer`.
//!
//! What the kinds of object have in common is written once, as a macro that makes the methods of the service; what is
//! particular to one follows in the block at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use feast_registry_core::{
    Encoded, Error, ErrorKind, FeastObject, Feature, Freshness, Kind, Object, Registry, Relation, Result, proto::core,
};
use tonic::{Request, Response, Status};

use crate::answers::{Answers, Asked, Objects};
use crate::call;
use crate::lists::{FeatureFilter, Lists, ViewFilter, Wanted, kind_of};
use crate::parts::InParts;
use crate::proto::any_feature_view::AnyFeatureView as AnyView;
use crate::proto::apply_feature_view_request::BaseFeatureView;
use crate::proto::registry_server_server::RegistryServer;
use crate::proto::*;
use crate::serve::ServeOptions;
use crate::status::status;
use crate::tenants::Memory;

/// Feast's registry server: an implementation of `feast.registry.RegistryServer` over a registry.
#[derive(Clone)]
pub struct Service {
    registry: Registry,
    request_timeout: Duration,
    /// `None`: each answer is sent as a whole.
    answers: Option<Answers>,
}

/// A service that does one request.
struct Call {
    registry: Registry,
    answers: Option<Answers>,
    /// Whether its client takes answers that are compressed with gzip.
    takes_gzip: bool,
    /// The caller's, if callers are known.
    memory: Option<Memory>,
}

type Reply<T> = std::result::Result<Response<T>, Status>;

/// The answer to a call, or its error.
fn reply<T>(call: &str, result: Result<T>) -> Reply<T> {
    result.map(Response::new).map_err(|error| status(call, error))
}

/// Objects as the type that a message has them in. The caller asked the registry for this kind.
fn encoded<T: FeastObject>(objects: Vec<Object>) -> Vec<Encoded<T>> {
    objects.into_iter().map(|object| Encoded::from_bytes(object.bytes)).collect()
}

fn required<T>(object: Option<Encoded<T>>, field: &str) -> Result<Encoded<T>> {
    object.ok_or_else(|| Error::invalid(format!("the request has no `{field}`")))
}

impl Service {
    /// A service over a registry. A request whose client sets no deadline may take half a minute.
    pub fn new(registry: Registry) -> Self {
        Self { registry, request_timeout: ServeOptions::default().request_timeout, answers: None }
    }

    /// The same that divides large answers. Its responses must go through [`parts::send`](crate::parts::send).
    pub(crate) fn with_divided_answers(mut self, answers: Answers) -> Self {
        self.answers = Some(answers);
        self
    }

    /// The same with another time for requests whose clients set no deadline.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// A request, and the call that does it as the request says: until when and why.
    fn of_call<T>(&self, request: Request<T>) -> (Call, T) {
        let registry = self.registry.with_call(call::options(&request, self.request_timeout));
        let takes_gzip = call::takes_gzip(request.metadata());
        let memory = call::memory(&request);
        (Call { registry, answers: self.answers.clone(), takes_gzip, memory }, request.into_inner())
    }
}

impl Call {
    /// An answer that may be large, made when there is room for it, or its error.
    async fn answer<T: InParts, F: Future<Output = Result<T>>>(
        &self,
        call: &'static str,
        objects: Objects,
        make: impl Fn() -> F,
    ) -> Reply<T> {
        let make = || async { make().await.map_err(|error| status(call, error)) };
        match &self.answers {
            Some(answers) => {
                let compressor = self.takes_gzip.then_some(&self.registry);
                answers.make(Asked { call, objects, compressor, caller: self.memory.as_ref() }, make).await
            }
            None => make().await.map(Response::new),
        }
    }

    /// Lists of the registry, as this call may see them.
    fn lists(&self) -> Lists<'_> {
        Lists(&self.registry)
    }

    /// With `commit: false`, what a registry in a file is told to store may wait for the commit; a database's is durable
    /// all the same.
    async fn apply(&self, project: &str, object: Object, commit: bool) -> Result<(), Error> {
        if commit {
            self.registry.apply(project, object).await.map(drop)
        } else {
            self.registry.apply_later(project, object).await
        }
    }
}

macro_rules! registry_server {
    (
        apply { $($apply:ident($apply_request:ident { $object:ident })),* $(,)? }
        get { $($get:ident($get_request:ident) -> $got:ident),* $(,)? }
        list { $($list:ident($list_request:ident) -> $list_response:ident { $listed:ident: $listed_kind:ident }),* $(,)? }
        delete { $($delete:ident($delete_request:ident) of $deleted:ident),* $(,)? }
        unimplemented { $($unimplemented:ident($unimplemented_request:ident) -> $unimplemented_response:ident),* $(,)? }
        particular { $($particular:tt)* }
    ) => {
        #[tonic::async_trait]
        impl RegistryServer for Service {
            $(async fn $apply(&self, request: Request<$apply_request>) -> Reply<()> {
                let (this, request) = self.of_call(request);
                let apply = async {
                    let object = required(request.$object, stringify!($object))?;
                    this.apply(&request.project, object.into(), request.commit).await
                };
                reply(stringify!($apply), apply.await)
            })*

            $(async fn $get(&self, request: Request<$get_request>) -> Reply<Encoded<core::$got>> {
                let (this, request) = self.of_call(request);
                let freshness = Freshness::allow_cache(request.allow_cache);
                let object = this.registry.get(Kind::$got, &request.project, &request.name, freshness).await;
                reply(stringify!($get), object.map(|object| Encoded::from_bytes(object.bytes)))
            })*

            $(async fn $list(&self, request: Request<$list_request>) -> Reply<$list_response> {
                let (this, request) = self.of_call(request);
                let list = || async {
                    let wanted = wanted(&request.project, request.allow_cache, &request.tags);
                    let objects = this.lists().of_kind(Kind::$listed_kind, &wanted).await?;
                    let (objects, pagination) =
                        this.lists().page(objects, request.pagination, request.sorting.as_ref()).await?;
                    Ok($list_response { $listed: encoded(objects), pagination: Some(pagination) })
                };
                this.answer(stringify!($list), Objects::of(request.allow_cache), list).await
            })*

            $(async fn $delete(&self, request: Request<$delete_request>) -> Reply<()> {
                let (this, request) = self.of_call(request);
                reply(stringify!($delete), this.registry.delete(Kind::$deleted, &request.project, &request.name).await)
            })*

            $(async fn $unimplemented(&self, _: Request<$unimplemented_request>) -> Reply<$unimplemented_response> {
                Err(Status::unimplemented(concat!(
                    stringify!($unimplemented),
                    ": datasets are retrieved with Feast's offline store, which runs in Python; \
                     call create_dataset_from_retrieval or retrieve_dataset_data of a FeatureStore instead",
                )))
            })*

            $($particular)*
        }
    };
}

registry_server! {
    apply {
        apply_entity(ApplyEntityRequest { entity }),
        apply_data_source(ApplyDataSourceRequest { data_source }),
        apply_feature_service(ApplyFeatureServiceRequest { feature_service }),
        apply_saved_dataset(ApplySavedDatasetRequest { saved_dataset }),
        apply_validation_reference(ApplyValidationReferenceRequest { validation_reference }),
        apply_permission(ApplyPermissionRequest { permission }),
        update_infra(UpdateInfraRequest { infra }),
    }
    get {
        get_entity(GetEntityRequest) -> Entity,
        get_data_source(GetDataSourceRequest) -> DataSource,
        get_feature_view(GetFeatureViewRequest) -> FeatureView,
        get_stream_feature_view(GetStreamFeatureViewRequest) -> StreamFeatureView,
        get_on_demand_feature_view(GetOnDemandFeatureViewRequest) -> OnDemandFeatureView,
        get_label_view(GetLabelViewRequest) -> LabelView,
        get_feature_service(GetFeatureServiceRequest) -> FeatureService,
        get_saved_dataset(GetSavedDatasetRequest) -> SavedDataset,
        get_validation_reference(GetValidationReferenceRequest) -> ValidationReference,
        get_permission(GetPermissionRequest) -> Permission,
    }
    list {
        list_entities(ListEntitiesRequest) -> ListEntitiesResponse { entities: Entity },
        list_data_sources(ListDataSourcesRequest) -> ListDataSourcesResponse { data_sources: DataSource },
        list_feature_views(ListFeatureViewsRequest) -> ListFeatureViewsResponse { feature_views: FeatureView },
        list_stream_feature_views(ListStreamFeatureViewsRequest) -> ListStreamFeatureViewsResponse {
            stream_feature_views: StreamFeatureView
        },
        list_on_demand_feature_views(ListOnDemandFeatureViewsRequest) -> ListOnDemandFeatureViewsResponse {
            on_demand_feature_views: OnDemandFeatureView
        },
        list_label_views(ListLabelViewsRequest) -> ListLabelViewsResponse { label_views: LabelView },
        list_validation_references(ListValidationReferencesRequest) -> ListValidationReferencesResponse {
            validation_references: ValidationReference
        },
        list_permissions(ListPermissionsRequest) -> ListPermissionsResponse { permissions: Permission },
    }
    delete {
        delete_entity(DeleteEntityRequest) of Entity,
        delete_data_source(DeleteDataSourceRequest) of DataSource,
        delete_feature_service(DeleteFeatureServiceRequest) of FeatureService,
        delete_saved_dataset(DeleteSavedDatasetRequest) of SavedDataset,
        delete_validation_reference(DeleteValidationReferenceRequest) of ValidationReference,
        delete_permission(DeletePermissionRequest) of Permission,
    }
    unimplemented {
        create_dataset_from_retrieval(CreateDatasetFromRetrievalRequest) -> CreateDatasetFromRetrievalResponse,
        get_dataset_data(GetDatasetDataRequest) -> GetDatasetDataResponse,
        get_dataset_job_status(GetDatasetJobStatusRequest) -> GetDatasetJobStatusResponse,
        list_dataset_jobs(ListDatasetJobsRequest) -> ListDatasetJobsResponse,
    }
    particular {
        async fn apply_feature_view(&self, request: Request<ApplyFeatureViewRequest>) -> Reply<()> {
            let (this, request) = self.of_call(request);
            let view: Object = match request.base_feature_view {
                Some(BaseFeatureView::FeatureView(view)) => view.into(),
                Some(BaseFeatureView::StreamFeatureView(view)) => view.into(),
                Some(BaseFeatureView::OnDemandFeatureView(view)) => view.into(),
                Some(BaseFeatureView::LabelView(view)) => view.into(),
                None => return reply("apply_feature_view", Err(Error::invalid("the request has no feature view of any kind"))),
            };
            reply("apply_feature_view", this.apply(&request.project, view, request.commit).await)
        }

        async fn delete_feature_view(&self, request: Request<DeleteFeatureViewRequest>) -> Reply<()> {
            let (this, request) = self.of_call(request);
            reply("delete_feature_view", this.registry.delete_view(&request.project, &request.name).await)
        }

        async fn get_any_feature_view(
            &self,
            request: Request<GetAnyFeatureViewRequest>,
        ) -> Reply<GetAnyFeatureViewResponse> {
            let (this, request) = self.of_call(request);
            let freshness = Freshness::allow_cache(request.allow_cache);
            let view = this.registry.get_any_view(&request.project, &request.name, freshness).await;
            reply("get_any_feature_view", view.map(|view| GetAnyFeatureViewResponse { any_feature_view: Some(any_view(view)) }))
        }

        async fn list_all_feature_views(
            &self,
            request: Request<ListAllFeatureViewsRequest>,
        ) -> Reply<ListAllFeatureViewsResponse> {
            let (this, request) = self.of_call(request);
            let objects = Objects::of(request.allow_cache);
            this.answer("list_all_feature_views", objects, || this.all_feature_views(&request)).await
        }

        async fn list_feature_services(
            &self,
            request: Request<ListFeatureServicesRequest>,
        ) -> Reply<ListFeatureServicesResponse> {
            let (this, request) = self.of_call(request);
            let list = || async {
                let wanted = wanted(&request.project, request.allow_cache, &request.tags);
                let services = this.lists().feature_services(&wanted, &request.feature_view).await?;
                let (services, pagination) = this.lists().page(services, request.pagination, request.sorting.as_ref()).await?;
                Ok(ListFeatureServicesResponse { feature_services: encoded(services), pagination: Some(pagination) })
            };
            this.answer("list_feature_services", Objects::of(request.allow_cache), list).await
        }

        async fn list_saved_datasets(
            &self,
            request: Request<ListSavedDatasetsRequest>,
        ) -> Reply<ListSavedDatasetsResponse> {
            let (this, request) = self.of_call(request);
            let list = || async {
                let wanted = wanted(&request.project, request.allow_cache, &request.tags);
                let datasets =
                    this.lists().saved_datasets(&wanted, &request.namespace, &request.collection).await?;
                let (datasets, pagination) = this.lists().page(datasets, request.pagination, request.sorting.as_ref()).await?;
                Ok(ListSavedDatasetsResponse { saved_datasets: encoded(datasets), pagination: Some(pagination) })
            };
            this.answer("list_saved_datasets", Objects::of(request.allow_cache), list).await
        }

        async fn apply_project(&self, request: Request<ApplyProjectRequest>) -> Reply<()> {
            let (this, request) = self.of_call(request);
            let apply = async {
                let project: Object = required(request.project, "project")?.into();
                this.apply(&project.name().map_err(invalid)?, project, request.commit).await
            };
            reply("apply_project", apply.await)
        }

        async fn get_project(&self, request: Request<GetProjectRequest>) -> Reply<Encoded<core::Project>> {
            let (this, GetProjectRequest { name, allow_cache }) = self.of_call(request);
            let project = this.registry.get(Kind::Project, &name, &name, Freshness::allow_cache(allow_cache)).await;
            reply("get_project", project.map(|project| Encoded::from_bytes(project.bytes)))
        }

        async fn list_projects(&self, request: Request<ListProjectsRequest>) -> Reply<ListProjectsResponse> {
            let (this, request) = self.of_call(request);
            let list = || async {
                let projects = this.lists().projects(request.tags.clone(), request.allow_cache).await?;
                let (projects, pagination) = this.lists().page(projects, request.pagination, request.sorting.as_ref()).await?;
                Ok(ListProjectsResponse { projects: encoded(projects), pagination: Some(pagination) })
            };
            this.answer("list_projects", Objects::of(request.allow_cache), list).await
        }

        async fn delete_project(&self, request: Request<DeleteProjectRequest>) -> Reply<()> {
            let (this, request) = self.of_call(request);
            reply("delete_project", this.registry.delete_project(&request.name).await)
        }

        async fn apply_materialization(&self, request: Request<ApplyMaterializationRequest>) -> Reply<()> {
            let (this, request) = self.of_call(request);
            let apply = async {
                let view: Object = required(request.feature_view, "feature_view")?.into();
                let name = view.name().map_err(invalid)?;
                let (start, end) = (request.start_date, request.end_date);
                this.registry.apply_materialization(&request.project, &name, start, end).await
            };
            reply("apply_materialization", apply.await)
        }

        async fn list_project_metadata(
            &self,
            request: Request<ListProjectMetadataRequest>,
        ) -> Reply<ListProjectMetadataResponse> {
            let (this, ListProjectMetadataRequest { project, allow_cache }) = self.of_call(request);
            let metadata = this.registry.list_project_metadata(&project, Freshness::allow_cache(allow_cache)).await;
            reply("list_project_metadata", metadata.map(|metadata| ListProjectMetadataResponse {
                project_metadata: metadata.iter().map(Encoded::new).collect(),
            }))
        }

        async fn get_infra(&self, request: Request<GetInfraRequest>) -> Reply<Encoded<core::Infra>> {
            let (this, GetInfraRequest { project, allow_cache }) = self.of_call(request);
            let infra = this.registry.get_infra(&project, Freshness::allow_cache(allow_cache)).await;
            reply("get_infra", infra.map(|infra| Encoded::from_bytes(infra.bytes)))
        }

        async fn commit(&self, request: Request<()>) -> Reply<()> {
            let (this, ()) = self.of_call(request);
            reply("commit", this.registry.commit().await)
        }

        async fn refresh(&self, request: Request<RefreshRequest>) -> Reply<()> {
            let (this, RefreshRequest { project }) = self.of_call(request);
            reply("refresh", this.registry.refresh_for(&project).await)
        }

        async fn proto(&self, request: Request<()>) -> Reply<Encoded<core::Registry>> {
            let (this, ()) = self.of_call(request);
            this.answer("proto", Objects::Own, || this.registry.proto(Freshness::Stored)).await
        }

        async fn get_registry_lineage(
            &self,
            request: Request<GetRegistryLineageRequest>,
        ) -> Reply<GetRegistryLineageResponse> {
            let (this, request) = self.of_call(request);
            this.answer("get_registry_lineage", Objects::Own, || this.registry_lineage(&request)).await
        }

        async fn get_object_relationships(
            &self,
            request: Request<GetObjectRelationshipsRequest>,
        ) -> Reply<GetObjectRelationshipsResponse> {
            let (this, request) = self.of_call(request);
            this.answer("get_object_relationships", Objects::Own, || this.object_relationships(&request)).await
        }

        async fn list_features(&self, request: Request<ListFeaturesRequest>) -> Reply<ListFeaturesResponse> {
            let (this, request) = self.of_call(request);
            let list = || async {
                let wanted = Wanted::of(&request.project, request.allow_cache);
                let filter = FeatureFilter {
                    kind: request.kind.clone(),
                    feature_view: request.feature_view.clone(),
                    name: request.name.clone(),
                };
                let features = this.lists().features(&wanted, &filter).await?;
                let (features, pagination) = this.lists().page(features, request.pagination, request.sorting.as_ref()).await?;
                let features = features.into_iter().map(feature_message).collect();
                Ok(ListFeaturesResponse { features, pagination: Some(pagination) })
            };
            this.answer("list_features", Objects::Own, list).await
        }

        async fn get_feature(&self, request: Request<GetFeatureRequest>) -> Reply<crate::proto::Feature> {
            let (this, GetFeatureRequest { project, feature_view, name, allow_cache }) = self.of_call(request);
            let features = this.registry.list_features(&project, Freshness::allow_cache(allow_cache)).await;
            reply("get_feature", features.and_then(|features| {
                let found = features.into_iter().find(|feature| feature.view == feature_view && feature.name == name);
                found.map(feature_message).ok_or_else(|| {
                    let message = format!("view `{feature_view}` of project `{project}` has no feature `{name}`");
                    Error::new(ErrorKind::FeatureNotFound, message)
                })
            }))
        }
    }
}

/// What was sent cannot be read: that is the caller's error, not the storage's.
fn invalid(error: Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, error.to_string())
}

fn any_view(view: Object) -> AnyFeatureView {
    fn of<T>(bytes: Bytes) -> Encoded<T> {
        Encoded::from_bytes(bytes)
    }
    let any = match view.kind {
        Kind::StreamFeatureView => AnyView::StreamFeatureView(of(view.bytes)),
        Kind::OnDemandFeatureView => AnyView::OnDemandFeatureView(of(view.bytes)),
        Kind::LabelView => AnyView::LabelView(of(view.bytes)),
        _ => AnyView::FeatureView(of(view.bytes)),
    };
    AnyFeatureView { any_feature_view: Some(any) }
}

/// As from Feast's server, owner and timestamps are empty.
fn feature_message(feature: Feature) -> crate::proto::Feature {
    let kind = kind_of(&feature).to_owned();
    crate::proto::Feature {
        name: feature.name,
        feature_view: feature.view,
        r#type: feature.type_name,
        description: feature.description,
        tags: feature.tags,
        kind,
        ..Default::default()
    }
}

fn relation_message(relation: Relation) -> EntityRelation {
    let end =
        |end: feast_registry_core::Reference| EntityReference { r#type: end.object_type.to_string(), name: end.name };
    EntityRelation { source: Some(end(relation.source)), target: Some(end(relation.target)) }
}

/// Which objects a request for a list wants.
fn wanted(project: &str, allow_cache: bool, tags: &BTreeMap<String, String>) -> Wanted {
    Wanted { tags: tags.clone(), ..Wanted::of(project, allow_cache) }
}

impl Call {
    async fn all_feature_views(&self, request: &ListAllFeatureViewsRequest) -> Result<ListAllFeatureViewsResponse> {
        let wanted = wanted(&request.project, request.allow_cache, &request.tags);
        let made_of = ViewFilter {
            entity: request.entity.clone(),
            feature: request.feature.clone(),
            feature_service: request.feature_service.clone(),
            data_source: request.data_source.clone(),
            updated_since: request.updated_since,
        };
        let views = self.lists().views(&wanted, &made_of).await?;
        let (views, pagination) = self.lists().page(views, request.pagination, request.sorting.as_ref()).await?;
        let feature_views = views.into_iter().map(any_view).collect();
        Ok(ListAllFeatureViewsResponse { feature_views, pagination: Some(pagination) })
    }

    async fn registry_lineage(&self, request: &GetRegistryLineageRequest) -> Result<GetRegistryLineageResponse> {
        let wanted = Wanted::of(&request.project, request.allow_cache);
        let of_object = (&request.filter_object_type, &request.filter_object_name);
        let lineage = self.lists().lineage(&wanted, of_object.0, of_object.1).await?;
        let sorting = request.sorting.as_ref();
        let (direct, relationships_pagination) = self.lists().page(lineage.direct, request.pagination, sorting).await?;
        let (indirect, indirect_relationships_pagination) =
            self.lists().page(lineage.indirect, request.pagination, sorting).await?;
        Ok(GetRegistryLineageResponse {
            relationships: direct.into_iter().map(relation_message).collect(),
            indirect_relationships: indirect.into_iter().map(relation_message).collect(),
            relationships_pagination: Some(relationships_pagination),
            indirect_relationships_pagination: Some(indirect_relationships_pagination),
        })
    }

    async fn object_relationships(
        &self,
        request: &GetObjectRelationshipsRequest,
    ) -> Result<GetObjectRelationshipsResponse> {
        let object = (request.object_type.parse()?, request.object_name.as_str());
        let wanted = Wanted::of(&request.project, request.allow_cache);
        let relations = self.lists().relationships(&wanted, object, request.include_indirect).await?;
        let (relations, pagination) =
            self.lists().page(relations, request.pagination, request.sorting.as_ref()).await?;
        let relationships = relations.into_iter().map(relation_message).collect();
        Ok(GetObjectRelationshipsResponse { relationships, pagination: Some(pagination) })
    }
}
