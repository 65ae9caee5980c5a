//! RocketMQ's settings that are read and have no effect: every name that a broker, name server or
//! controller of 4.1 to 5.5 takes from its file, and that is not an alias in `keys.rs`.
//!
//! `tests/vectors/config-keys.json` has the names by version; a test goes through them.

/// Why a setting has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is nothing here that it could change; the text says what is there instead.
    Here,
    /// What it is about is not built yet; the text names that.
    NotYet,
}

/// Settings without effect, and their common reason.
#[derive(Clone, Copy, Debug)]
pub struct Stock {
    /// Whether this may change.
    pub status: Status,
    /// The reason, for people.
    pub why: &'static str,
    /// The names, separated by white space.
    names: &'static str,
}

impl Stock {
    /// The names of these settings.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.split_ascii_whitespace()
    }
}

/// The group of a RocketMQ setting that has no effect here.
pub fn find(given: &str) -> Option<&'static Stock> {
    STOCK
        .iter()
        .find(|group| group.names().any(|name| name == given))
}

/// All groups, in the order in which they are told.
pub const STOCK: &[Stock] = &[
    Stock {
        status: Status::Here,
        why: "expired messages are deleted all day, a log file at a time, and nothing else is",
        names: "\
            cleanFileForciblyEnable cleanResourceInterval deleteCommitLogFilesInterval \
            deleteConsumeQueueFilesInterval deleteFileBatchMax deleteWhen \
            destroyMapedFileIntervalForcibly diskFallRecorded diskMaxUsedSpaceRatio \
            diskSpaceCleanForciblyRatio logicalDiskSpaceCleanForciblyThreshold \
            maxBatchDeleteFilesNum redeleteHangedFileInterval replicasPerDiskPartition",
    },
    Stock {
        status: Status::Here,
        why: "all data is below data_dir (storePathRootDir)",
        names: "\
            abortFile brokerConfigPath messageStorePlugIn readOnlyCommitLogStorePaths \
            rocketmqHome storeCheckpoint storePathCommitLog storePathConsumeQueue storePathIndex",
    },
    Stock {
        status: Status::Here,
        why: "the log and its indexes are RocksDB's, with files, syncs and recovery of their own",
        names: "\
            accessMessageInMemoryHotRatio accessMessageInMemoryMaxRatio batchWriteKvCqSize \
            bottomMostCompressionTypeForConsumeQueueStore checkCRCOnRecover \
            checkCommitLogOffsetOnRecover cleanRocksDBDirtyCQIntervalMin cleanSwapedMapInterval \
            combineAssignOffsetCQType combineCQEnableCheckSelf combineCQLoadingCQTypes \
            combineCQMaxExtraSearchCommitLogFiles combineCQPreferCQType \
            commitCommitLogLeastPages commitCommitLogThoroughInterval commitIntervalCommitLog \
            commitLogForceSwapMapInterval commitLogRecoverMaxNum commitLogSwapMapInterval \
            commitLogSwapMapReserveFileNum configManagerVersion consumerOffsetUpdateVersionStep \
            correctLogicMinOffsetForceInterval correctLogicMinOffsetSleepInterval \
            debugLockEnable dispatchCqCacheNum dispatchCqThreads dispatchFromSenderThread \
            enableAcceleratedRecovery enableAsyncReput enableBuildConsumeQueueConcurrently \
            enableLogConsumeQueueRepeatedlyBuildWhenRecover enableRocksDBLog \
            enableRunningFlagsInFlush enableSplitMetadata enabledAppendPropCRC \
            fastFailIfNoBufferInStorePool flushCommitLogLeastPages \
            flushCommitLogThoroughInterval flushCommitLogTimed flushConsumeQueueLeastPages \
            flushConsumeQueueThoroughInterval flushConsumerOffsetHistoryInterval \
            flushConsumerOffsetInterval flushIntervalConsumeQueue \
            flushLeastPagesWhenWarmMapedFile forceVerifyPropCRC \
            iteratorWhenUseRocksdbConsumeQueue logicQueueForceSwapMapInterval \
            logicQueueSwapMapInterval logicQueueSwapMapReserveFileNum mapedFileSizeConsumeQueue \
            mappedFileSizeConsumeQueue mappedFileSwapEnable mapperFileSizeBatchConsumeQueue \
            maxChecksumRange maxRecoveryCommitlogFiles memTableFlushInterval \
            memTableFlushIntervalMs persistConsumerOffsetIncrementally \
            putConsumeQueueDataByFileChannel readUnCommitted realTimePersistRocksDBConfig \
            recheckReputOffsetFromCq recoverConcurrently rocksdbCQDoubleWriteEnable \
            rocksdbCompressionType rocksdbFlushWalFrequency rocksdbWalFileRollingThreshold \
            searchBcqByCacheEnable sharedByteBufferNum splitMetadataSize \
            statRocksDBCQIntervalSec storeType transferMetadataJsonToRocksdb \
            transferOffsetJsonToRocksdb transientStorePoolEnable transientStorePoolSize \
            useSeparateStorePathForRocksdbCQ useSingleRocksDBForAllConfigs \
            wakeCommitWhenPutMessage wakeFlushWhenPutMessage warmMapedFileEnable \
            writeWithoutMmap",
    },
    Stock {
        status: Status::Here,
        why: "threads, sockets and queues are sized by this server (gateway_threads, max_inflight_bytes, max_pending_requests)",
        names: "\
            adminBrokerThreadPoolNums adminBrokerThreadPoolQueueCapacity asyncSendEnable \
            batchDispatchRequestThreadPoolNums brokerFastFailureEnable channelNotActiveInterval \
            clientAsyncSemaphoreValue clientCallbackExecutorThreads \
            clientChannelMaxIdleTimeSeconds clientCloseSocketIfTimeout \
            clientManageThreadPoolNums clientManagerThreadPoolQueueCapacity \
            clientOnewaySemaphoreValue clientPooledByteBufAllocatorEnable \
            clientRequestThreadPoolNums clientRequestThreadPoolQueueCapacity \
            clientSocketRcvBufSize clientSocketSndBufSize clientWorkerThreads \
            connectTimeoutMillis consumerManageThreadPoolNums \
            consumerManagerThreadPoolQueueCapacity defaultThreadPoolNums \
            defaultThreadPoolQueueCapacity disableCallbackExecutor disableNettyWorkerGroup \
            enableNetWorkFlowControl enableReconnectForGoAway enableShutdownGracefully \
            enableTransparentRetry heartbeatThreadPoolNums heartbeatThreadPoolQueueCapacity \
            highSpeedMode loadBalanceProcessorThreadPoolNums loadBalanceThreadPoolQueueCapacity \
            maxAsyncPutMessageRequests maxReconnectIntervalTimeSeconds \
            osPageCacheBusyTimeOutMills processReplyMessageThreadPoolNums \
            pullMessageThreadPoolNums pullThreadPoolQueueCapacity putMessageFutureThreadPoolNums \
            putThreadPoolQueueCapacity queryMessageThreadPoolNums queryThreadPoolQueueCapacity \
            recoverThreadPoolNums replyThreadPoolQueueCapacity sendMessageThreadPoolNums \
            sendThreadPoolQueueCapacity serverAsyncSemaphoreValue serverCallbackExecutorThreads \
            serverNettyWorkerGroupEnable serverOnewaySemaphoreValue \
            serverPooledByteBufAllocatorEnable serverSelectorThreads serverSocketBacklog \
            serverSocketRcvBufSize serverSocketSndBufSize serverWorkerThreads \
            shutdownWaitTimeSeconds socksProxyConfig spinLockCollisionRetreatOptimalDegree \
            topicQueueLockNum transferMsgByHeap useABSLock useEpollNativeSelector \
            useReentrantLockWhenPutMessage waitTimeMillsInAdminBrokerQueue \
            waitTimeMillsInHeartbeatQueue waitTimeMillsInLitePullQueue waitTimeMillsInPullQueue \
            waitTimeMillsInSendQueue writeBufferHighWaterMark writeBufferLowWaterMark",
    },
    Stock {
        status: Status::Here,
        why: "Raft replicates and chooses leaders: peers, shards and replicas say where (docs/operating.md)",
        names: "\
            allAckInSyncStateSet asyncLearner brokerElectionPriority brokerHeartbeatInterval \
            brokerIP2 brokerNotActiveTimeoutMillis checkSyncStateSetPeriod \
            compatibleWithOldNameSrv controllerAddr controllerDLegerGroup controllerDLegerPeers \
            controllerDLegerSelfId controllerHeartBeatTimeoutMills \
            controllerRequestThreadPoolQueueCapacity controllerStorePath \
            controllerThreadPoolNums controllerType dLegerGroup dLegerPeers dLegerSelfId \
            disappearTimeAfterStart duplicationEnable electMasterMaxRetryCount \
            enableAutoInSyncReplicas enableBatchPush enableControllerInNamesrv \
            enableControllerMode enableDLegerCommitLog enableElectUncleanMaster \
            enableRemoteEscape enableSlaveActingMaster fetchControllerAddrByDnsLookup \
            haFlowControlEnable haHousekeepingInterval haMasterAddress haMaxGapNotInSync \
            haMaxTimeSlaveNotCatchup haSendHeartbeatInterval haSlaveFallbehindMax \
            haTransferBatchSize inBrokerContainer inSyncReplicas jRaftControllerRPCAddr \
            jRaftElectionTimeoutMs jRaftGroupId jRaftInitConf jRaftScanWaitTimeoutMs \
            jRaftServerId jRaftSnapshotIntervalSecs lockInStrictMode mappedFileSize \
            maxHaTransferByteInSecond maxSlaveResendLength minInSyncReplicas \
            notifyBrokerRoleChanged notifyMinBrokerIdChanged offsetCheckInSlave \
            preferredLeaderId processReadEvent scanInactiveMasterInterval \
            sendHeartbeatTimeoutMillis skipPreOnline storePathBrokerIdentity \
            storePathDLedgerCommitLog storePathEpochFile supportActingMaster \
            syncBrokerMemberGroupPeriod syncBrokerMetadataPeriod syncControllerMetadataPeriod \
            syncFromLastFile syncMasterFlushOffsetWhenStartup totalReplicas",
    },
    Stock {
        status: Status::Here,
        why: "delayed messages wait in the log, to the millisecond, as long as timer_max_delay_secs allows",
        names: "\
            allowRecallWhenBrokerNotWriteable appendTopicForTimerDeleteKey \
            delayOffsetUpdateVersionStep enableScheduleAsyncDeliver enableScheduleMessageStats \
            flushDelayOffsetInterval mappedFileSizeTimerLog maxDelayTime recallMessageEnable \
            scheduleAsyncDeliverMaxPendingLimit scheduleAsyncDeliverMaxResendNum2Blocked \
            timerCongestNumEachSlot timerEnableCheckMetrics timerEnableRetryUntilSuccess \
            timerFlushIntervalMs timerGetMessageThreadNum timerInterceptDelayLevel \
            timerMetricSmallThreshold timerPrecisionMs timerProgressLogIntervalMs \
            timerPutMessageThreadNum timerRecallToTimeWheelEnable timerRecallToTimelineEnable \
            timerReputServiceCorePoolSize timerReputServiceMaxPoolSize \
            timerReputServiceQueueCapacity timerRocksDBEnable timerRocksDBPrecisionMs \
            timerRocksDBRollIntervalHours timerRocksDBRollMaxTps timerRocksDBRollRangeHours \
            timerRocksDBStopScan timerRocksDBTimeExpiredMaxTps timerRollWindowSlot \
            timerSkipUnknownError timerStopEnqueue timerWheelEnable timerWheelSnapshotFlush \
            timerWheelSnapshotIntervalMs",
    },
    Stock {
        status: Status::Here,
        why: "figures are on the page /metrics of http_listen_port",
        names: "\
            accountStatsEnable accountStatsPrintZeroValues autoDeleteUnusedStats \
            commercialBaseCount commercialBigCount commercialEnable commercialSizePerMsg \
            commercialTimerCount commercialTransCount enableConnectionMetrics enableDetailStat \
            enableLagAndDlqMetrics enableMessageStoreMetrics enableRemotingMetrics \
            enableRequestMetrics enableStatsMetrics estimateAccumulation isolateLogEnable \
            maxConsumeQueueScan maxStatsIdleTimeInMinutes metricGrpcExporterIntervalInMills \
            metricGrpcExporterTimeOutInMills metricLoggingExporterIntervalInMills \
            metricsExportBatchMaxDataPoints metricsExporterType metricsGrpcExporterHeader \
            metricsGrpcExporterTarget metricsInDelta metricsLabel metricsOtelCardinalityLimit \
            metricsPromExporterHost printChannelGroups printChannelGroupsMinNum \
            sampleCountThreshold sampleSteps",
    },
    Stock {
        status: Status::Here,
        why: "name servers are those of namesrv_addr, and this node's registry needs no settings",
        names: "\
            cleanOfflineBrokerInterval clusterTest compressedRegister configStorePath \
            deleteTopicWithBrokerRegistration enableAllTopicList enableRegisterProducer \
            enableSingleTopicRegister enableSplitRegistration enableTopicList \
            fetchNameSrvAddrByDnsLookup fetchNamesrvAddrByAddressServer fetchNamesrvAddrInterval \
            forceRegister kvConfigPath needWaitForService orderMessageEnable productEnvName \
            registerBrokerTimeoutMills returnOrderTopicConfigToBroker rmqAddressServerDomain \
            rmqAddressServerSubGroup scanAvailableNameSrv scanNotActiveBrokerInterval \
            splitRegistrationSize unRegisterBrokerQueueCapacity updateNameServerAddrPeriod \
            waitSecondsForService",
    },
    Stock {
        status: Status::Here,
        why: "the behaviour cannot be changed here",
        names: "\
            autoMessageVersionOnTopicLen broadcastOffsetExpireMaxSecond \
            broadcastOffsetExpireSecond brokerTopicEnable channelExpiredTimeout \
            clearRetryTopicWhenDeleteTopic clusterTopicEnable configBlackList \
            consumerFallbehindThreshold disableConsumeIfConsumerReadSlowly \
            enableBroadcastOffsetStore enableCleanExpiredOffset enableCreateSysGroup \
            enableFastChannelEventProcess forwardTimeout maxTopicLength \
            maxTransferBytesOnMessageInDisk maxTransferCountOnMessageInDisk \
            notifyConsumerIdsChangedEnable pullBatchMaxMessageCount putMessageTimeout \
            realTimeNotifyConsumerChange regionId rejectPullConsumerEnable \
            startAcceptSendRequestTimeStamp storeReplyMessageEnable subscriptionExpiredTimeout \
            traceOn travelCqFileNumWhenGetMessage useStaticSubscription \
            validateSystemTopicWhenUpdateTopic",
    },
    Stock {
        status: Status::Here,
        why: "RocketMQ sets it itself (the name of the cluster is brokerClusterName)",
        names: "\
            clusterName configName",
    },
    Stock {
        status: Status::NotYet,
        why: "authentication, permissions and TLS for clients",
        names: "\
            aclCacheExpiredSecond aclCacheMaxNum aclCacheRefreshSecond aclEnable authConfigPath \
            authenticationEnabled authenticationMetadataProvider authenticationProvider \
            authenticationStrategy authenticationWhitelist authorizationEnabled \
            authorizationMetadataProvider authorizationProvider authorizationStrategy \
            authorizationWhitelist initAuthenticationUser innerClientAuthenticationCredentials \
            migrateAuthFromV1Enabled statefulAuthenticationCacheExpiredSecond \
            statefulAuthenticationCacheMaxNum statefulAuthorizationCacheExpiredSecond \
            statefulAuthorizationCacheMaxNum useTLS userCacheExpiredSecond userCacheMaxNum \
            userCacheRefreshSecond",
    },
    Stock {
        status: Status::NotYet,
        why: "transactions",
        names: "\
            checkTransactionMessageEnable enableTransactionMetrics \
            endTransactionPoolQueueCapacity endTransactionThreadPoolNums \
            rejectTransactionMessage transRocksDBEnable transWriteOriginTransHalfEnable \
            transactionCheckInterval transactionCheckMax transactionCheckRocksdbCoreThreads \
            transactionCheckRocksdbMaxThreads transactionCheckRocksdbQueueCapacity \
            transactionMetricFlushInterval transactionOpBatchInterval transactionOpMsgMaxSize \
            transactionTimeOut waitTimeMillsInTransactionQueue",
    },
    Stock {
        status: Status::NotYet,
        why: "pop consumers",
        names: "\
            ackMessageThreadPoolNums ackThreadPoolQueueCapacity appendAckAsync appendCkAsync \
            defaultMessageRequestMode defaultPopShareQueueNum \
            enableNotifyAfterPopOrderLockRelease enableNotifyBeforePopCalculateLag \
            enablePopBatchAck enablePopBufferMerge enablePopLog enablePopMessageThreshold \
            enablePopMetrics enableRetryTopicV2 enableSkipLongAwaitingAck \
            initPopOffsetByCheckMsgInMem loadBalancePollNameServerInterval \
            maxMessageFilterNumForNotification maxPopPollingSize popCkMaxBufferSize \
            popCkOffsetMaxQueueSize popCkStayBufferTime popCkStayBufferTimeOut \
            popConsumerFSServiceInit popConsumerKVServiceEnable popConsumerKVServiceInit \
            popConsumerKVServiceLog popFromRetryProbability popFromRetryProbabilityForPriority \
            popInflightMessageThreshold popLongPollingForceNotifyInterval \
            popPollingMapExpireTimeSeconds popPollingMapSize popPollingSize \
            popResponseReturnActualRetryTopic popReviveConcurrency popReviveMaxAttemptTimes \
            popReviveMaxReturnSizePerRead popReviveSkipIfGroupAbsent priorityOrderAsc \
            retrieveMessageFromPopRetryTopicV1 reviveAckWaitMs reviveInterval reviveMaxSlow \
            reviveQueueNum reviveScanTime serverLoadBalancerEnable serverLoadBalancerEnabled \
            skipWhenCKRePutReachMaxTimes useMessageFilterForNotification useSeparateRetryQueue \
            useServerSideResetOffset waitTimeMillsInAckQueue",
    },
    Stock {
        status: Status::NotYet,
        why: "SQL92 filters",
        names: "\
            bitMapLengthConsumeQueueExt enableCalcFilterBitMap enableConsumeQueueExt \
            expectConsumerNumUseFilter filterDataCleanTimeSpan filterServerNums \
            filterSupportRetry mappedFileSizeConsumeQueueExt maxErrorRateOfBloomFilter \
            maxFilterMessageSize",
    },
    Stock {
        status: Status::NotYet,
        why: "queries by message key",
        names: "\
            defaultQueryMaxNum indexFileReadEnable indexFileWriteEnable indexRocksDBEnable \
            maxHashSlotNum maxIndexNum maxMsgsNumBatch maxRocksDBIndexQueryDays \
            messageIndexEnable messageIndexSafe putMsgIndexHightWater",
    },
    Stock {
        status: Status::NotYet,
        why: "lite topics",
        names: "\
            combineCQUseRocksdbForLmq enableLiteEventMode enableLitePopLog enableLmq \
            enableLmqQuota enableLmqStats enableMultiDispatch liteEventCheckInterval \
            liteEventFullDispatchDelayTime liteEventFullDispatchDelayTimeForWildcardGroup \
            liteLagCountMetricsEnable liteLagLatencyCollectEnable liteLagLatencyMetricsEnable \
            liteLagLatencyTopK litePullMessageEnable litePullMessageThreadPoolNums \
            litePullThreadPoolQueueCapacity liteSubscriptionCheckInterval \
            liteSubscriptionCheckTimeoutMills liteTtlCheckInterval maxClientEventCount \
            maxLiteSubscriptionCount maxLmqConsumeQueueNum minLiteTTl",
    },
    Stock {
        status: Status::NotYet,
        why: "compacted topics",
        names: "\
            compactionCqMappedFileSize compactionMappedFileSize compactionScheduleInternal \
            compactionThreadNum enableCompaction maxOffsetMapSize",
    },
    Stock {
        status: Status::NotYet,
        why: "tiered storage",
        names: "\
            commitLogRollingInterval commitLogRollingMinimumSize maxCommitJitter \
            objectStoreAccessKey objectStoreBucket objectStoreEndpoint objectStoreSecretKey \
            ossAccessKey ossBucket ossEndpoint ossSecretKey readAheadBatchSizeFactorThreshold \
            readAheadCacheEnable readAheadCacheExpireDuration readAheadCacheSizeThresholdRate \
            readAheadMaxFactor readAheadMessageCountThreshold readAheadMessageSizeThreshold \
            readAheadMinFactor recordGetMessageResult tieredBackendServiceProvider \
            tieredMetadataServiceProvider tieredStorageLevel tieredStoreCommitLogMaxSize \
            tieredStoreConsumeQueueMaxSize tieredStoreCrcCheckEnable tieredStoreDeleteFileEnable \
            tieredStoreDeleteFileInterval tieredStoreFilePath tieredStoreFileReservedTime \
            tieredStoreFilepath tieredStoreGroupCommit tieredStoreGroupCommitCount \
            tieredStoreGroupCommitSize tieredStoreGroupCommitTimeout \
            tieredStoreIndexFileMaxHashSlotNum tieredStoreIndexFileMaxIndexNum \
            tieredStoreIndexFileRollingIdleInterval tieredStoreMaxFallBehindSize \
            tieredStoreMaxGroupCommitCount tieredStoreMaxPendingLimit",
    },
    Stock {
        status: Status::NotYet,
        why: "limits for consumers of old messages",
        names: "\
            cgColdReadThreshold coldCtrStrategyEnable coldDataFlowControlEnable \
            coldDataScanEnable dataReadAheadEnable globalColdReadThreshold \
            timerColdDataCheckIntervalMs usePIDColdCtrStrategy",
    },
];
